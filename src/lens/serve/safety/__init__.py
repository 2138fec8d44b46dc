"""Safety: moderation, provenance marks and their verification."""
