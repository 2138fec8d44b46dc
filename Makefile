# make check: all that has to hold before a change is handed in. Uses .venv (see README) unless PYTHON says otherwise.
# No formatter gate: the aligned shape comments (docs/conventions.md) are what a formatter would take away.
PYTHON ?= .venv/bin/python

.PHONY: check lint types test
check: lint types test

lint:
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m pyright --pythonpath $(PYTHON)

# README commands, import floors, minimal dependencies and documents are among the tests (tests/architecture).
test:
	$(PYTHON) -m pytest
