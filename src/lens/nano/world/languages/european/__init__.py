"""European languages of captions of the nano world."""
