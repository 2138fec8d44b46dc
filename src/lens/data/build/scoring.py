"""Scoring of a part of the inventory: each entry is decoded once for all scorers that lack it.

Each scorer has a folder, with a table for each part and a row for each entry. The row of the pixel scores
says whether the bytes are an image. The id of a sample is the hash of its bytes; an entry without bytes gets
one from its address, so that it is accounted for too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lens.data.build.inventory import Inventory
from lens.data.build.prepared import Preparation, sample_preparer
from lens.data.build.reader import EntryReader
from lens.data.io.image_decoding import ImageError, decode_image, sample_id
from lens.data.io.parquet import Schema, part_path, write_table
from lens.data.io.text_values import escape_surrogates
from lens.data.scorers.base import Scorer, ScorerSettings, load_scorer
from lens.data.scorers.pixel_stats import VERSION, pixel_scores
from lens.data.sources.registry import NumberedEntry

PIXEL_SCORES_FOLDER = f"pixels-{VERSION}"
SCHEMA = {
    "id": "string", "num_bytes": "int64", "unreadable": "string", "detail": "string",
    "format": "string", "notes": "list",
    "height_px": "int32", "width_px": "int32", "area_px": "float64", "clarity": "float64",
    "entropy": "float64", "luminance": "float64", "perceptual_hash": "uint64",
    "detail_hash": "binary",
}  # fmt: skip
SCORER_BATCH_SIZE = 16
"""Images that wait for the models at most: bounds memory."""
SCORER_SIDE_PX = 1024
"""Models see images reduced by a whole factor to less than twice this side."""


def scores_folder(settings: ScorerSettings) -> str:
    """Return the name of the folder of a scorer, which includes its version."""
    scorer = load_scorer(settings)
    return f"{scorer.name}-{scorer.version}"


def unscored_parts(scores: Path, num_parts: int, scorers: Sequence[ScorerSettings]) -> list[int]:
    """Return the parts that some scorer has not scored yet."""
    folders = [scores / PIXEL_SCORES_FOLDER, *(scores / scores_folder(scorer) for scorer in scorers)]
    return [n for n in range(num_parts) if not all(part_path(folder, n).is_file() for folder in folders)]


def score_part(
    inventory: Inventory,
    number: int,
    scores: Path,
    reader: EntryReader,
    scorers: Sequence[ScorerSettings] = (),
    preparation: Preparation | None = None,
) -> int:
    """Score a part by every scorer that has not scored it, and return its number of entries.

    With a preparation, the images that may stay are made ready for their shards meanwhile.
    """
    entries = inventory.part(number)
    tables = {scorer: part_path(scores / scores_folder(scorer), number) for scorer in scorers}
    missing = {load_scorer(scorer): path for scorer, path in tables.items() if not path.is_file()}
    pixels = part_path(scores / PIXEL_SCORES_FOLDER, number)
    if pixels.is_file() and not missing:
        return len(entries)
    failures = reader.prefetch(entries)
    rows: list[dict[str, Any]] = []
    pending: dict[int, Image.Image] = {}
    scored: dict[Scorer, dict[int, dict[str, Any]]] = {scorer: {} for scorer in missing}
    with sample_preparer(preparation, number) as prepare:
        for index, entry in enumerate(entries):
            row, image = score_entry(entry, reader, failures.get(entry[1].path, ""))
            rows.append(row)
            prepare(entry[1], row, image)
            if image is not None and missing:
                pending[index] = reduce_for_scorers(image)
            if len(pending) == SCORER_BATCH_SIZE or index == len(entries) - 1:
                for scorer in missing if pending else ():
                    found = scorer.score(list(pending.values()))
                    scored[scorer] |= dict(zip(pending, found, strict=True))
                pending = {}
    if not pixels.is_file():
        _write_rows(pixels, rows, SCHEMA)
    for scorer, path in missing.items():
        # A row for every entry: the tables of all scorers are read side by side.
        ids = [{"id": row["id"], **scored[scorer].get(index, {})} for index, row in enumerate(rows)]
        _write_rows(path, ids, {"id": "string", **scorer.columns})
    return len(entries)


def score_entry(
    numbered: NumberedEntry, reader: EntryReader, failure: str = ""
) -> tuple[dict[str, Any], Image.Image | None]:
    """Return the row of one entry and its image; `failure` is why it could not be downloaded."""
    source, entry = numbered
    row: dict[str, Any] = dict.fromkeys(SCHEMA)
    name = sample_id(f"nothing at {source}:{entry.address}".encode())
    row |= {"id": name, "num_bytes": 0, "unreadable": "", "notes": []}
    try:
        if failure:
            raise ImageError(failure, entry.path)
        content = reader.read(numbered)
        row |= {"id": sample_id(content) if content else name, "num_bytes": len(content)}
        if len(content) < entry.num_bytes:
            raise ImageError("corrupt", f"only {len(content)} of {entry.num_bytes} bytes exist")
        decoded_image = decode_image(content)
    except ImageError as error:
        return row | {"unreadable": error.reason, "detail": escape_surrogates(error.detail[:200])}, None
    image, scores = decoded_image.image, pixel_scores(decoded_image.image)
    row |= scores._asdict() | {
        "format": decoded_image.format, "notes": list(decoded_image.notes), "height_px": image.height,
        "width_px": image.width, "area_px": float(image.height * image.width),
    }  # fmt: skip
    return row, image


def reduce_for_scorers(image: Image.Image) -> Image.Image:
    """Return the image that a model sees: the image itself, or one reduced by a whole factor."""
    factor = max(image.size) // SCORER_SIDE_PX
    return image.reduce(factor) if factor > 1 else image


def _write_rows(path: Path, rows: list[dict[str, Any]], schema: Schema) -> None:
    write_table(path, {name: [row.get(name) for row in rows] for name in schema}, schema)
