"""Counts of what sources pass over, and what to tell where nothing else is there."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lens.data.io.entry import PassedOver
from lens.data.io.text_values import escape_controls
from lens.data.sources.folder_walk import LINK_OUT

ARCHIVE_EXTENSIONS = (".zip", ".7z", ".rar", ".tgz", ".gz", ".bz2", ".xz", ".zst")
UNPACK = "Unpack the archive, and set it to the folder with the images."
NUM_NAMED = 3
"""Names of each kind that messages give."""


class PassedOverCounts(NamedTuple):
    """What all sources pass over, of one kind."""

    kind: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count} {self.kind} ({', '.join(self.examples)}{more})"


class PassedOverCounter:
    """Counts what is passed over by kind, with the first names of each."""

    def __init__(self) -> None:
        self._counts: dict[str, PassedOverCounts] = {}

    def add(self, one: PassedOver) -> None:
        """Count one."""
        kind, count, examples = self._counts.get(one.kind, PassedOverCounts(one.kind, 0, ()))
        named = (escape_controls(one.address),) if len(examples) < NUM_NAMED else ()
        self._counts[one.kind] = PassedOverCounts(kind, count + 1, (*examples, *named))

    def counts(self) -> tuple[PassedOverCounts, ...]:
        """Return the counts of all kinds in alphabetical order."""
        return tuple(self._counts[kind] for kind in sorted(self._counts))


def is_archive(path: Path) -> bool:
    """Return whether a path is that of packed files that no source reads, by its name."""
    return path.is_file() and path.name.lower().endswith(ARCHIVE_EXTENSIONS)


def no_image_message(passed_over: Iterable[PassedOverCounts], setting: str) -> str:
    """Return what sources without an image hold instead, and what to do.

    `setting` is the name of the setting that allows links to lead out of them.
    """
    named = "; ".join(map(str, passed_over))
    kinds = {one.kind for one in passed_over}
    fixes = {
        LINK_OUT: f"Set {setting} to true if these links may be followed.",
        ".tar files": "`lens data build` reads images in tars with source.kind tars.",
        ".parquet files": "`lens data build` reads tables of images with source.kind manifest.",
        **{f"{one} files": "Unpack the archives first." for one in ARCHIVE_EXTENSIONS},
        ".jsonl files": "`lens data build` reads tables of images with source.kind manifest.",
    }
    fix = next((fix for kind, fix in fixes.items() if kind in kinds), "")
    return " ".join(filter(None, (f"It holds {named}." if named else "It is empty.", fix)))
