"""The scores of one part of the inventory: every entry read and decoded once, a row for each.

A row says whether its bytes are a picture and, where they are, everything that filters ask. Samples are named
by their bytes; an entry without any is named by its address, so that it too can be accounted for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lens.data.fetching import Fetching, fetch_all
from lens.data.inventory import Inventory
from lens.data.pictures import Unreadable, decode, sample_id
from lens.data.scores.pixels import VERSION, pixel_scores
from lens.data.sources.entry import Entry
from lens.data.sources.manifest import entry_bytes, is_address
from lens.data.tables import part_path, write_table

FOLDER = f"pixels-{VERSION}"
SCHEMA = {
    "id": "string", "num_bytes": "int64", "unreadable": "string", "detail": "string",
    "format": "string", "notes": "list",
    "height_px": "int32", "width_px": "int32", "area_px": "float64", "clarity": "float64",
    "entropy": "float64", "luminance": "float64", "perceptual_hash": "uint64",
}  # fmt: skip


def measure_part(
    inventory: Inventory, number: int, scores: Path, downloads: Path, fetching: Mapping[int, Fetching]
) -> int:
    """Measure a part unless that was done, and return how many entries it has.

    `fetching` says how addresses are fetched, by the number of their source.
    """
    path = part_path(scores / FOLDER, number)
    entries = inventory.numbered_part(number)
    if not path.is_file():
        failures = _fetched(entries, downloads, fetching)
        rows = [measured(entry, downloads, failures.get(entry.path, "")) for _, entry in entries]
        write_table(path, {name: [row[name] for row in rows] for name in SCHEMA}, SCHEMA)
    return len(entries)


def _fetched(
    entries: list[tuple[int, Entry]], downloads: Path, fetching: Mapping[int, Fetching]
) -> dict[str, str]:
    """Fetch what is still on the web; return why each address that gives nothing does not."""
    failures = {}
    for source, settings in fetching.items():
        urls = [entry.path for number, entry in entries if number == source and is_address(entry.path)]
        found = zip(urls, fetch_all(urls, downloads, settings), strict=True)
        failures |= {url: one.reason for url, one in found if one.reason}
    return failures


def measured(entry: Entry, downloads: Path, failure: str = "") -> dict[str, Any]:
    """Return the row of one entry; `failure` is why it could not be fetched."""
    content = entry_bytes(entry, downloads)
    row: dict[str, Any] = dict.fromkeys(SCHEMA)
    name = sample_id(content or f"nothing at {entry.address}".encode())
    row |= {"id": name, "num_bytes": len(content), "unreadable": "", "notes": []}
    try:
        if failure:
            raise Unreadable(failure, entry.path)
        if len(content) < entry.num_bytes:
            raise Unreadable("corrupt", f"{len(content)} of {entry.num_bytes} bytes are there")
        picture = decode(content)
    except Unreadable as error:
        return row | {"unreadable": error.reason, "detail": error.detail[:200]}
    image, scores = picture.image, pixel_scores(picture.image)
    return row | scores._asdict() | {
        "format": picture.format, "notes": list(picture.notes), "height_px": image.height,
        "width_px": image.width, "area_px": float(image.height * image.width),
    }  # fmt: skip
