"""Published layouts of weights, read and written: see `catalog` for models, `convert` for formats."""
