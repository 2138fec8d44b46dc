"""The scores of one part of the inventory: every entry read and decoded once, a row for each.

A row says whether its bytes are a picture and, where they are, everything that filters ask. Samples are named
by their bytes; an entry without any is named by its address, so that it too can be accounted for.
"""

from pathlib import Path
from typing import Any

from lens.data.inventory import Inventory
from lens.data.pictures import Unreadable, decode, sample_id
from lens.data.scores.pixels import VERSION, pixel_scores
from lens.data.sources.entry import Entry, read_bytes
from lens.data.tables import part_path, write_table

FOLDER = f"pixels-{VERSION}"
SCHEMA = {
    "id": "string", "unreadable": "string", "detail": "string", "format": "string", "notes": "list",
    "height_px": "int32", "width_px": "int32", "area_px": "float64", "clarity": "float64",
    "entropy": "float64", "luminance": "float64", "perceptual_hash": "uint64",
}  # fmt: skip


def measure_part(inventory: Inventory, number: int, scores: Path) -> int:
    """Measure a part unless that was done, and return how many entries it has."""
    path = part_path(scores / FOLDER, number)
    entries = inventory.part(number)
    if not path.is_file():
        rows = [measured(entry) for entry in entries]
        write_table(path, {name: [row[name] for row in rows] for name in SCHEMA}, SCHEMA)
    return len(entries)


def measured(entry: Entry) -> dict[str, Any]:
    """Return the row of one entry."""
    content = read_bytes(entry)
    row: dict[str, Any] = dict.fromkeys(SCHEMA)
    row |= {"id": sample_id(content or f"nothing at {entry.address}".encode()), "unreadable": "", "notes": []}
    try:
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
