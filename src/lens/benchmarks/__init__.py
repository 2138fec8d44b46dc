"""Prompts of published benchmarks: their files, licences, and what each image has to show.

No prompt of a benchmark is in this package: files are downloaded on request, or named by the user.
"""
