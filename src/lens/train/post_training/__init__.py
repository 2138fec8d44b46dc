"""What reinforcement learning and distillation share."""
