"""`lens generate`, from its arguments to image files."""
