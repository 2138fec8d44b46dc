"""Languages of captions of the nano world."""
