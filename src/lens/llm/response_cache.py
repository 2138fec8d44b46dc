"""Disk cache of answers of a model, each written as soon as it arrives.

A key covers everything that an answer depends on: image, prompt, model and sampling. A file has one line an
answer (JSON). A last line that a kill cut off is ignored.
"""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO


def response_key(
    sample_id: str, prompt_version: str, model: str, sampling: dict[str, Any], attempt: int = 0
) -> str:
    """Return the key of an answer; a retry after an invalid answer is another `attempt`."""
    facts = json.dumps(
        [sample_id, prompt_version, model, sampling, attempt], sort_keys=True, ensure_ascii=False
    )
    return hashlib.sha256(facts.encode()).hexdigest()


class ResponseCache:
    """Answers by key in an append-only file. One process writes; its threads may share the object."""

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        self._responses = _read_responses(path)
        self._file: BinaryIO | None = None
        """Opened with the first answer: a model that never answers leaves no file."""

    def get(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            return self._responses.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer; once this returns, the answer survives a kill of the process."""
        line = json.dumps({"key": key, **answer}, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._responses[key] = answer
            file = self._file = self._file or self._open()
            file.write(line)
            file.flush()

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab")
        if file.tell() and not _ends_with_newline(self._path):
            file.write(b"\n")  # the next answer starts a line of its own after one that was cut off
        return file

    def close(self) -> None:
        """Flush everything to disk, where it survives a power cut."""
        with self._lock:
            if self._file is not None:
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
                continue  # a line that was cut off, or the empty end
    return known


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
