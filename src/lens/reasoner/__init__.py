"""The reasoner: turns a request into one drawable prompt, or refuses it before an image is made."""
