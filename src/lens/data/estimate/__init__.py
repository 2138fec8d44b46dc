"""Cost estimates of data builds."""
