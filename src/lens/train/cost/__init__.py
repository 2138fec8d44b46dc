"""Cost estimates of training runs."""
