"""Cost estimates of training runs, RL and distillation."""
