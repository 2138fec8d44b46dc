"""The studio: the web page for creators."""
