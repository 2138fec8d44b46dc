"""Answers kept on disk, each as soon as it is there: what was paid for once is not asked again.

A key says everything that an answer depends on: the picture, the wording, the model, how it samples. A file
is a line an answer; a last line that was cut off by a kill is as if it had not been begun.
"""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def response_key(
    sample_id: str, prompt_version: str, model: str, sampling: dict[str, Any], attempt: int = 0
) -> str:
    """Return the key of an answer; a caption that failed its audit is asked for again as the next attempt."""
    facts = json.dumps(
        [sample_id, prompt_version, model, sampling, attempt], sort_keys=True, ensure_ascii=False
    )
    return hashlib.sha256(facts.encode()).hexdigest()


class ResponseCache:
    """Answers by key, in one file that only grows. One process writes; its threads share this object."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._responses = _read_responses(path)
        self._file = path.open("ab")
        if self._file.tell() and not _ends_with_newline(path):
            self._file.write(b"\n")  # so that what follows a line that was cut off is a line of its own

    def get(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            return self._responses.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer; it is in the hands of the system when this returns, and survives a kill."""
        line = json.dumps({"key": key, **answer}, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._responses[key] = answer
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Bring everything to disk; a power cut can then take nothing."""
        with self._lock:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __len__(self) -> int:
        return len(self._responses)


def _read_responses(path: Path) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_bytes().split(b"\n"):
            try:
                answer = json.loads(line)
                known[answer.pop("key")] = answer
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # cut off, or the empty end
    return known


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
