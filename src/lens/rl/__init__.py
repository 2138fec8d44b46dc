"""Prompts, rubrics and rewards of reinforcement learning."""
