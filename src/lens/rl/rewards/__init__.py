"""Rewards behind one protocol, one idea a file, and the pool that asks them while sampling goes on."""
