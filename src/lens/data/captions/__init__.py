"""Captions: what is asked of a vision-language model, its answers kept, and an audit of them."""
