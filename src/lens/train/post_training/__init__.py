"""Parts shared by reinforcement learning and distillation."""
