"""The data engine: images in, cleaned and bucketed shards out, and a ledger of every dropped sample."""
