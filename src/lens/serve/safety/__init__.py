"""Moderation, provenance marks, and their verification."""
