"""Post-training by reinforcement learning: prompts, rubrics, and what judges pictures by them."""
