"""Training batches, and the latents and text features they are read from."""
