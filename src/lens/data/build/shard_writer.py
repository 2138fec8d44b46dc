"""The shard writer: kept samples in order, as they were prepared, or read and fitted to their bucket."""

import json
from pathlib import Path
from typing import Any

from lens.data.build.inventory import Inventory
from lens.data.build.prepared import image_files, read_prepared
from lens.data.build.reader import EntryReader
from lens.data.build.settings import ShardSettings
from lens.data.io.image_decoding import decode_image, sample_id
from lens.data.io.parquet import read_table
from lens.data.io.sample import BRIEF_CAPTION, FULL_CAPTION
from lens.data.io.webdataset import ShardError, json_bytes, write_shard
from lens.data.sources.registry import NumberedEntry
from lens.files import write_bytes_atomic


def shard_names(view: Path) -> list[str]:
    """Return the names of the shards of a view, in their order."""
    return list(dict.fromkeys(read_table(view / "kept.parquet").column("shard").to_pylist()))


def write_view_shard(
    inventory: Inventory, view: Path, name: str, settings: ShardSettings, reader: EntryReader, prepared: Path
) -> dict:
    """Write one shard of a view unless it exists, and return its line of the index.

    `prepared` is the folder of the samples that were prepared; it need not exist.
    """
    index_path = view / "shards" / f"{name}.json"
    if not index_path.is_file():
        rows = read_table(view / "kept.parquet", shard=name).to_pylist()
        parts: dict[int, list[NumberedEntry]] = {}

        def image_files_of(row: dict[str, Any]) -> dict[str, bytes]:
            if files := read_prepared(prepared, row):
                return files
            if row["part"] not in parts:
                parts[row["part"]] = inventory.part(row["part"])
            return _read_image_files(parts[row["part"]][row["row"]], row["id"], settings, reader)

        samples = ((row["id"], image_files_of(row) | _caption_files(row)) for row in rows)
        written = write_shard(view / "shards" / f"{name}.tar", samples)
        facts = {
            "shard": written.path.name, "num_samples": written.num_samples,
            "num_bytes": written.num_bytes, "sha256": written.sha256,
        }  # fmt: skip
        write_bytes_atomic(index_path, json_bytes(facts))
    return json.loads(index_path.read_text())


def _read_image_files(
    numbered: NumberedEntry, known_id: str, settings: ShardSettings, reader: EntryReader
) -> dict[str, bytes]:
    """Return the image and the facts of an entry.

    Raises: ShardError for bytes that changed since they were scored.
    """
    content = reader.read(numbered)
    if sample_id(content) != known_id:
        fix = "Build into another folder (out)."
        raise ShardError(f"{numbered[1].path} changed since the inventory was taken. {fix}")
    return image_files(numbered[1], known_id, decode_image(content).image, settings)


def _caption_files(row: dict[str, Any]) -> dict[str, bytes]:
    captions = {FULL_CAPTION: row["caption"], BRIEF_CAPTION: row["brief"]}
    return {extension: text.encode() for extension, text in captions.items() if text}
