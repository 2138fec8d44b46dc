"""Candidates of a search, and their log."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lens.files import write_bytes_atomic
from lens.reasoner.search.archive import Comparison, Scores
from lens.reasoner.search.evaluation import PromptResult, text_hash
from lens.reasoner.search.ledger import Spent

Status = Literal["start", "invalid", "repeated", "gated", "not better", "kept"]
"""start: what the search began with. invalid: no system prompt came. repeated: the text was there before.
gated: it broke a rule before a picture was drawn. not better: it did not beat its parent. kept: it is in the
archive."""


@dataclass
class Candidate:
    """A system prompt, or the attempt at one."""

    number: int
    parent: int | None
    """Number of the candidate that it is a change of; None for the start."""
    text: str = ""
    change: str = ""
    """What was changed, in the words of the rewriter."""
    status: Status = "start"
    reason: str = ""
    """Why it is not in the archive."""
    minibatch: Comparison | None = None
    selection: list[PromptResult] = field(default_factory=list)
    """Results on the selection split; empty where it did not get there."""
    cost: Spent = field(default_factory=Spent)

    @property
    def hash(self) -> str:
        return text_hash(self.text) if self.text else ""

    @property
    def scores(self) -> Scores:
        """Return the score of each prompt of the selection split."""
        return np.array([result.score for result in self.selection])

    @property
    def selection_score(self) -> float | None:
        return float(self.scores.mean()) if self.selection else None

    def to_dict(self) -> dict[str, Any]:
        """Return the line of the log."""
        return {
            "number": self.number, "parent": self.parent, "hash": self.hash, "status": self.status,
            "reason": self.reason, "change": self.change,
            "minibatch": self.minibatch._asdict() if self.minibatch else None,
            "selection_score": self.selection_score, "selection": self.scores.tolist(),
            **self.cost._asdict(), "text": self.text,
        }  # fmt: skip


def write_log(candidates: Sequence[Candidate], path: Path) -> None:
    """Write a line for each candidate."""
    lines = (json.dumps(one.to_dict(), ensure_ascii=False) for one in candidates)
    write_bytes_atomic(path, "".join(f"{line}\n" for line in lines).encode())
