"""The stages of a data build, from the inventory to the shards."""
