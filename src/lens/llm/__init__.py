"""Clients of language models behind an OpenAI-compatible endpoint."""
