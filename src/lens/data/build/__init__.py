"""The stages of a data build."""
