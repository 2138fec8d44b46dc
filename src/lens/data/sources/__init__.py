"""Where pictures come from: each source lists its entries in a fixed order and reads any one of them."""
