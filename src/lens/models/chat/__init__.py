"""Language models as chat models: conversations as tokens, the next tokens one by one, what they cost."""
