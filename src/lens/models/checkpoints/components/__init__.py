"""Components of a model in files of their own: what a file holds, where the others are, and tokenizers."""
