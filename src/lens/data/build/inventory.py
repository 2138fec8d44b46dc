"""The inventory: every entry of every source once, in parts of a fixed size.

All later work goes part by part. An inventory is a snapshot: it does not see what is added to a source later.
"""

import json
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lens.data.build.settings import BuildSettings
from lens.data.io.entry import Entry, SourceError
from lens.data.io.image_decoding import IMAGE_EXTENSIONS
from lens.data.io.parquet import part_path, read_table, write_table
from lens.data.io.webdataset import json_bytes
from lens.data.sources.registry import NumberedEntry
from lens.files import write_bytes_atomic

SCHEMA = {
    "source": "int32", "address": "string", "path": "string", "offset": "int64", "num_bytes": "int64",
    "caption": "string", "licence": "string",
}  # fmt: skip


class Inventory(NamedTuple):
    """A complete inventory."""

    folder: Path
    num_parts: int
    num_entries: int

    def part(self, number: int) -> list[NumberedEntry]:
        """Return the entries of a part in their order, each with the number of its source."""
        rows = read_table(part_path(self.folder, number)).to_pylist()
        return [(row.pop("source"), Entry(**row)) for row in rows]


def take_inventory(settings: BuildSettings) -> Inventory:
    """Return the inventory of a build; list the sources if it is not complete yet.

    Raises: SourceError for a source that cannot be listed, or where no source has an image.
    """
    where = settings.out / "inventory" / settings.inventory_id
    committed = where / "inventory.json"
    if not committed.is_file():
        _write_inventory(settings, where)
    facts = json.loads(committed.read_text())
    return Inventory(where, facts["num_parts"], facts["num_entries"])


def _write_inventory(settings: BuildSettings, where: Path) -> None:
    sources = enumerate(settings.all_sources)
    numbered = ((number, entry) for number, source in sources for entry in source.entries())
    num_parts = num_entries = 0
    while rows := list(islice(numbered, settings.part_size)):
        columns: dict[str, list] = {"source": [number for number, _ in rows]}
        columns |= {name: [getattr(entry, name) for _, entry in rows] for name in Entry._fields}
        write_table(part_path(where, num_parts), columns, SCHEMA)
        num_parts, num_entries = num_parts + 1, num_entries + len(rows)
    if not num_entries:
        paths = ", ".join(str(getattr(source, "path", source.kind)) for source in settings.all_sources)
        raise SourceError(f"There is no image in {paths}. Known extensions: {', '.join(IMAGE_EXTENSIONS)}.")
    # Last: a listing that was interrupted starts again from its beginning.
    write_bytes_atomic(
        where / "inventory.json", json_bytes({"num_parts": num_parts, "num_entries": num_entries})
    )
