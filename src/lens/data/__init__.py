"""The data engine: a pile of pictures to cleaned, bucketed shards, and a ledger of why the others fell."""
