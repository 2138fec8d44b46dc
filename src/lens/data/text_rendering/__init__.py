"""Pictures of text: what is written, in which font, where, on what, and the caption that is true of it."""
