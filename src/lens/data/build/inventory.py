"""The inventory: every entry of every source once, in parts of a fixed size, and all that was passed over.

All later work goes part by part. An inventory is a snapshot: it does not see what is added to a source later.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lens.data.build.settings import BuildSettings
from lens.data.io.entry import Entry, PassedOver, SourceError
from lens.data.io.parquet import part_path, read_table, write_table
from lens.data.io.webdataset import json_bytes
from lens.data.sources.passed_over import PassedOverCounter, PassedOverCounts, no_image_message
from lens.data.sources.registry import NumberedEntry
from lens.files import remove_on_failure, write_bytes_atomic

SCHEMA = {
    "source": "int32", "address": "string", "path": "binary", "offset": "int64", "num_bytes": "int64",
    "caption": "string", "licence": "string", "brief": "string", "fault": "string", "detail": "string",
}  # fmt: skip
"""Paths are bytes: a name of a file need not be text."""
PASSED_OVER_SCHEMA = {"source": "int32", "kind": "string", "address": "string"}


class Inventory(NamedTuple):
    """A complete inventory."""

    folder: Path
    num_parts: int
    num_entries: int
    passed_over: tuple[PassedOverCounts, ...] = ()

    def part(self, number: int) -> list[NumberedEntry]:
        """Return the entries of a part in their order, each with the number of its source."""
        return [entry_of_row(row) for row in read_table(part_path(self.folder, number)).to_pylist()]


def entry_of_row(row: Mapping[str, Any]) -> NumberedEntry:
    """Return the entry that a row of an inventory holds."""
    values = {**row, "path": os.fsdecode(row["path"])}
    number = values.pop("source")
    return number, Entry(**values)


def take_inventory(settings: BuildSettings) -> Inventory:
    """Return the inventory of a build; list the sources if it is not complete yet.

    Raises: SourceError for a source that cannot be listed, or where no source has an image.
    """
    where = settings.out / "inventory" / settings.inventory_id
    committed = where / "inventory.json"
    if not committed.is_file():
        with remove_on_failure(where):
            _write_inventory(settings, where)
    facts = json.loads(committed.read_text())
    passed_over = tuple(
        PassedOverCounts(kind, count, tuple(examples)) for kind, count, examples in facts["passed_over"]
    )
    return Inventory(where, facts["num_parts"], facts["num_entries"], passed_over)


def _write_inventory(settings: BuildSettings, where: Path) -> None:
    entries = _PartWriter(where, settings.part_size, SCHEMA)
    others = _PartWriter(where / "passed_over", max(settings.part_size, 10_000), PASSED_OVER_SCHEMA)
    counter = PassedOverCounter()
    for number, source in enumerate(settings.all_sources):
        for one in source.listing():
            if isinstance(one, PassedOver):
                counter.add(one)
                others.add({"source": number, **one._asdict()})
            else:
                entries.add({"source": number, **one._asdict(), "path": os.fsencode(one.path)})
    passed_over = counter.counts()
    if not entries.finish():
        paths = ", ".join(str(getattr(source, "path", source.kind)) for source in settings.all_sources)
        instead = no_image_message(passed_over, "source.allows_outside")
        raise SourceError(f"There is no image in {paths}. {instead}")
    others.finish()
    facts = {"num_parts": entries.num_parts, "num_entries": entries.num_rows, "passed_over": passed_over}
    # Last: a listing that was interrupted starts again from its beginning.
    write_bytes_atomic(where / "inventory.json", json_bytes(facts))


class _PartWriter:
    """Writes rows in tables of a fixed size."""

    def __init__(self, folder: Path, size: int, schema: Mapping[str, str]):
        self.folder, self.size, self.schema = folder, size, schema
        self.num_parts = self.num_rows = 0
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; write the table that it fills."""
        self._rows.append(row)
        if len(self._rows) == self.size:
            self._write()

    def finish(self) -> int:
        """Write the rows that are left; return the number of all rows."""
        if self._rows:
            self._write()
        return self.num_rows

    def _write(self) -> None:
        columns = {name: [row[name] for row in self._rows] for name in self.schema}
        write_table(part_path(self.folder, self.num_parts), columns, self.schema)
        self.num_parts, self.num_rows = self.num_parts + 1, self.num_rows + len(self._rows)
        self._rows = []
