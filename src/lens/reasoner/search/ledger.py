"""The ledger of a search: every answer and every score is made once, kept in a file, and counted.

A search that is run again after a kill takes the same steps and finds their answers here, so that it ends as
if it had not been stopped. What a step costs is what it cost the first time. Knows nothing of the steps.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lens.llm.response_cache import ResponseCache


class Spent(NamedTuple):
    """What a search has cost."""

    pictures: int = 0
    tokens: int = 0
    requests: int = 0
    """Answers of the language models."""
    seconds: float = 0.0
    """Of all calls, one after another."""

    def plus(self, other: "Spent", sign: int = 1) -> "Spent":
        """Return the sum of both; with -1 for a sign, the difference."""
        return Spent(
            self.pictures + sign * other.pictures,
            self.tokens + sign * other.tokens,
            self.requests + sign * other.requests,
            self.seconds + sign * other.seconds,
        )


Made = tuple[dict[str, Any], Spent]
"""An answer, of values of JSON, and what it cost."""


class Ledger:
    """Answers by key, in a file. One process may use it; its threads may share the object."""

    def __init__(self, path: Path):
        self.spent = Spent()
        """By the steps of this run, those included whose answers were in the file."""
        self.num_calls = 0
        """Answers that were not in the file."""
        self._answers = ResponseCache(path)
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def ask(self, facts: Sequence[Any], call: Callable[[], Made]) -> dict[str, Any]:
        """Return the answer that belongs to the facts; `call` makes it, and says what it cost."""
        key = key_of(facts)
        answer = self._answers.get(key)
        if answer is None:
            started_at = time.perf_counter()
            content, cost = call()
            cost = cost._replace(seconds=time.perf_counter() - started_at)
            answer = {"content": content, "cost": list(cost)}
            self._answers.put(key, answer)
            self.num_calls += 1
        self._count(key, answer)
        return answer["content"]

    def ask_together(
        self, facts: Sequence[Sequence[Any]], call: Callable[[list[int]], Sequence[Made]], size: int
    ) -> list[dict[str, Any]]:
        """Return an answer for each of the facts; `call` makes those of at most `size` places at a time.

        A batch is made again as a whole if it was stopped: what is computed together can depend on it.
        """
        keys = [key_of(one) for one in facts]
        # What this run has seen, not what the file has: so batches are the same in a run that resumes.
        missing = [place for place, key in enumerate(keys) if key not in self._seen]
        missing = list({keys[place]: place for place in reversed(missing)}.values())[::-1]
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            if any(self._answers.get(keys[place]) is None for place in batch):
                started_at = time.perf_counter()
                made = call(batch)
                seconds = (time.perf_counter() - started_at) / len(batch)
                for place, (content, cost) in zip(batch, made, strict=True):
                    cost = cost._replace(seconds=seconds)
                    self._answers.put(keys[place], {"content": content, "cost": list(cost)})
                self.num_calls += len(batch)
        return [self._count(key, self._answers.get(key) or {}) for key in keys]

    def close(self) -> None:
        self._answers.close()

    def _count(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if key not in self._seen:
                self._seen.add(key)
                self.spent = self.spent.plus(Spent(*answer["cost"]))
        return answer["content"]


def key_of(facts: Sequence[Any]) -> str:
    """Return the key of facts, which are values of JSON."""
    text = json.dumps(list(facts), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_of(*facts: Any) -> int:
    """Return a seed that facts, values of JSON, belong to."""
    return int(key_of(facts)[:8], 16) % 2**31
