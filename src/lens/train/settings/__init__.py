"""Settings of training runs."""
