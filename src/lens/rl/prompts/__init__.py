"""Prompt sets for reinforcement learning, with rubrics."""
