"""Prompt sets for reinforcement learning."""
