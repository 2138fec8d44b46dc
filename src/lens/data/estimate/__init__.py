"""Cost estimates of data builds, from published and measured throughput."""
