"""Rewards behind one protocol, and the executor that scores images during sampling."""
