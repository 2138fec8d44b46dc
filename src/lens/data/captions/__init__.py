"""Captions: prompts, backends that answer them, and rules that captions have to pass."""
