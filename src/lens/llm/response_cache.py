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

from lens.files import write_bytes_atomic


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

    def __init__(self, path: Path, max_bytes: int | None = None, mode: int = 0o666):
        """Beyond `max_bytes` the oldest answers go, until half of that is left; None keeps all.

        `mode` are the permissions of the file, which the umask of the process reduces.
        """
        self._path, self._lock, self._max_bytes, self._mode = path, threading.Lock(), max_bytes, mode
        self._responses = _read_responses(path)
        self._file: BinaryIO | None = None
        """Opened with the first answer: a model that never answers leaves no file."""

    def get(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            return self._responses.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer; once this returns, the answer survives a kill of the process."""
        line = _line(key, answer)
        with self._lock:
            self._responses.pop(key, None)  # it is the newest now
            self._responses[key] = answer
            file = self._file = self._file or self._open()
            file.write(line)
            file.flush()
            if self._max_bytes is not None and file.tell() > self._max_bytes:
                self._drop_oldest(self._max_bytes // 2)

    def _drop_oldest(self, num_bytes: int) -> None:
        """Keep the newest answers that take so many bytes."""
        kept: dict[str, bytes] = {}
        for key, answer in reversed(self._responses.items()):
            kept[key] = _line(key, answer)
            num_bytes -= len(kept[key])
            if num_bytes < 0 and len(kept) > 1:
                del kept[key]
                break
        if self._file is not None:
            self._file.close()
            self._file = None
        self._responses = {key: self._responses[key] for key in reversed(kept)}
        write_bytes_atomic(self._path, b"".join(reversed(kept.values())), self._mode)

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        file = os.fdopen(os.open(self._path, flags, self._mode), "ab")
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


def _line(key: str, answer: dict[str, Any]) -> bytes:
    return json.dumps({"key": key, **answer}, sort_keys=True, ensure_ascii=False).encode() + b"\n"


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
