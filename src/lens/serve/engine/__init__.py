"""The engine: requests of any threads, computed together."""
