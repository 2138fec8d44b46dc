"""Data sources: each lists its entries in a fixed order and reads any one of them."""
