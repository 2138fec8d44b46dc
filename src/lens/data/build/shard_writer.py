"""The shard writer: kept samples are read again, fitted to their bucket, and written in order."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lens.data.buckets import best_fit, resize_and_crop
from lens.data.build.inventory import Inventory
from lens.data.build.reader import EntryReader
from lens.data.build.settings import ShardSettings
from lens.data.io.entry import Entry
from lens.data.io.image_decoding import decode_image, sample_id
from lens.data.io.parquet import read_table
from lens.data.io.sample import BRIEF_CAPTION, FULL_CAPTION
from lens.data.io.webdataset import ShardError, json_bytes, write_shard
from lens.data.sources.registry import NumberedEntry
from lens.files import write_bytes_atomic

PILLOW_FORMAT = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def shard_names(view: Path) -> list[str]:
    """Return the names of the shards of a view, in their order."""
    return list(dict.fromkeys(read_table(view / "kept.parquet").column("shard").to_pylist()))


def write_view_shard(
    inventory: Inventory, view: Path, name: str, settings: ShardSettings, reader: EntryReader
) -> dict:
    """Write one shard of a view unless it exists, and return its line of the index."""
    index_path = view / "shards" / f"{name}.json"
    if not index_path.is_file():
        rows = read_table(view / "kept.parquet", shard=name).to_pylist()
        entries = _read_entries(inventory, rows)
        samples = (
            (row["id"], _sample_files(entry[1], reader.read(entry), row, settings))
            for row, entry in zip(rows, entries, strict=True)
        )
        written = write_shard(view / "shards" / f"{name}.tar", samples)
        facts = {
            "shard": written.path.name, "num_samples": written.num_samples,
            "num_bytes": written.num_bytes, "sha256": written.sha256,
        }  # fmt: skip
        write_bytes_atomic(index_path, json_bytes(facts))
    return json.loads(index_path.read_text())


def _read_entries(inventory: Inventory, rows: list[dict]) -> Iterator[NumberedEntry]:
    parts: dict[int, list[NumberedEntry]] = {}
    for row in rows:
        if row["part"] not in parts:
            parts[row["part"]] = inventory.part(row["part"])
        yield parts[row["part"]][row["row"]]


def _sample_files(entry: Entry, content: bytes, row: dict, settings: ShardSettings) -> dict[str, bytes]:
    """Return the files of a sample: the image at the size of its bucket, its captions, its facts.

    Raises: ShardError for bytes that changed since they were scored.
    """
    known_id = row["id"]
    if sample_id(content) != known_id:
        fix = "Build into another folder (out)."
        raise ShardError(f"{entry.path} changed since the inventory was taken. {fix}")
    image = decode_image(content).image
    fit = best_fit(image.height, image.width, settings.bases)
    assert fit is not None, known_id
    buffer = io.BytesIO()
    _save_image(resize_and_crop(image, fit), buffer, settings)
    facts = {
        "id": known_id,
        "address": entry.address,
        "licence": entry.licence,
        "base": fit.base,
        "ratio": fit.ratio,
        "height_px": image.height,
        "width_px": image.width,
        "cut": round(fit.crop_fraction, 6),
    }
    files = {settings.format: buffer.getvalue(), "json": json_bytes(facts)}
    captions = {FULL_CAPTION: row["caption"], BRIEF_CAPTION: row["brief"]}
    return files | {extension: text.encode() for extension, text in captions.items() if text}


def _save_image(image: Image.Image, buffer: io.BytesIO, settings: ShardSettings) -> None:
    options = {
        "jpg": {"quality": settings.quality, "subsampling": 0, "optimize": False},
        "webp": {"quality": settings.quality, "method": 4},
        "png": {"compress_level": 6},
    }[settings.format]
    image.save(buffer, PILLOW_FORMAT[settings.format], **options)
