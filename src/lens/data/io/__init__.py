"""Reading and writing: downloads, image decoding, Parquet, WebDataset shards, and entries of sources."""
