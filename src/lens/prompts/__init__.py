"""Prompts as people write them: styles, alternatives, wildcards, LoRAs and weights inside the text."""
