"""Adapters of a denoiser: their files in every key style, and their layers."""
