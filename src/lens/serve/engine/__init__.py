"""The engine: requests from any thread, generated in shared batches."""
