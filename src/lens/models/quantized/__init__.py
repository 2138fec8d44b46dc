"""Weights in 4 and 8 bits: their arithmetic and their modules."""
