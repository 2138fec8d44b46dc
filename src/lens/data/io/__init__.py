"""Bytes in and out: downloads, image decoding, Parquet, WebDataset shards."""
