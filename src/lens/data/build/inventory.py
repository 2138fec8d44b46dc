"""The inventory: every entry of every source, once, in parts of fixed size that all later work is done by.

It is a snapshot: what comes to a source later is not seen until the inventory is made anew.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lens.data.build.reader import NumberedEntry
from lens.data.build.settings import BuildSettings
from lens.data.io.entry import Entry, SourceError
from lens.data.io.parquet import part_path, read_table, write_table
from lens.data.io.webdataset import json_bytes
from lens.data.sources import image_folder, manifest, synthetic_text, webdataset
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.sources.manifest import ManifestSource
from lens.data.sources.webdataset import WebDatasetSource
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
    """Return the inventory of a build, listing the sources if it is not complete yet.

    Raises: SourceError for a source that cannot be listed, or when there is no picture in any.
    """
    where = settings.out / "inventory" / settings.inventory_id
    committed = where / "inventory.json"
    if not committed.is_file():
        _write_inventory(settings, where)
    facts = json.loads(committed.read_text())
    return Inventory(where, facts["num_parts"], facts["num_entries"])


def _write_inventory(settings: BuildSettings, where: Path) -> None:
    numbered = _list_entries(settings)
    num_parts = num_entries = 0
    while rows := list(islice(numbered, settings.part_size)):
        columns: dict[str, list] = {"source": [number for number, _ in rows]}
        columns |= {name: [getattr(entry, name) for _, entry in rows] for name in Entry._fields}
        write_table(part_path(where, num_parts), columns, SCHEMA)
        num_parts, num_entries = num_parts + 1, num_entries + len(rows)
    if not num_entries:
        paths = ", ".join(str(getattr(source, "path", source.kind)) for source in settings.all_sources)
        raise SourceError(
            f"There is no picture in {paths}. Known: {', '.join(image_folder.IMAGE_EXTENSIONS)}."
        )
    # Last: a listing that was interrupted is made again from its beginning.
    write_bytes_atomic(
        where / "inventory.json", json_bytes({"num_parts": num_parts, "num_entries": num_entries})
    )


def _list_entries(settings: BuildSettings) -> Iterator[tuple[int, Entry]]:
    for number, source in enumerate(settings.all_sources):
        if isinstance(source, ImageFolderSource):
            listed = image_folder.image_folder_entries(source)
        elif isinstance(source, WebDatasetSource):
            listed = webdataset.webdataset_entries(source)
        elif isinstance(source, ManifestSource):
            listed = manifest.manifest_entries(source)
        else:
            listed = synthetic_text.synthetic_text_entries(source)
        yield from ((number, entry) for entry in listed)
