"""Tables and writers of the English captions."""
