"""The state of a server: database, API keys, image files."""
