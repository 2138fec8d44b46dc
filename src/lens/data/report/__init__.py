"""The report of a build: one HTML page about what was kept and what was dropped."""
