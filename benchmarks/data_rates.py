"""Rates of data builds on one core: the measured values of src/lens/data/estimate/throughput.yaml.

    python benchmarks/data_rates.py

Prints one rate a line. The image is a JPEG of quality 90, 1600 x 1200, of squares of random colours. It has
more bytes than a photograph and times of the same order, and no text.
"""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lens.data.buckets import best_fit, resize_and_crop
from lens.data.build.dedup import pairs_by_hash
from lens.data.build.scoring import SCHEMA, reduce_for_scorers
from lens.data.io.image_decoding import decode_image
from lens.data.io.parquet import write_table
from lens.data.scorers.base import load_scorer
from lens.data.scorers.nudenet import NudeNetSettings
from lens.data.scorers.ocr import OcrSettings
from lens.data.scorers.pixel_stats import pixel_scores

WIDTH, HEIGHT, ENLARGED = 1600, 1200, 8
CALLS = 15
NUM_HASHES = 20_000
NUM_ROWS = 1000


def seconds_a_call(work: Callable[[], object]) -> float:
    work()
    started_at = time.process_time()
    for _ in range(CALLS):
        work()
    return (time.process_time() - started_at) / CALLS


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def bytes_a_row(rng: np.random.Generator) -> float:
    """Return the size of one row of the pixel scores."""
    columns = {name: [None] * NUM_ROWS for name in SCHEMA}
    columns |= {name: rng.random(NUM_ROWS) for name, kind in SCHEMA.items() if kind == "float64"}
    whole = [name for name, kind in SCHEMA.items() if kind.startswith("int")]
    columns |= {name: rng.integers(0, 4000, NUM_ROWS) for name in whole}
    columns |= {
        "id": [rng.bytes(32).hex() for _ in range(NUM_ROWS)], "unreadable": [""] * NUM_ROWS,
        "format": ["JPEG"] * NUM_ROWS, "notes": [[]] * NUM_ROWS,
        "perceptual_hash": rng.integers(0, 2**63, NUM_ROWS, dtype=np.uint64),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        write_table(path, columns, SCHEMA)
        return path.stat().st_size / NUM_ROWS


def main() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT // ENLARGED, WIDTH // ENLARGED, 3), dtype=np.uint8)
    content = jpeg(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST), quality=90)
    megapixels = WIDTH * HEIGHT / 1e6
    image = decode_image(content).image
    fit = best_fit(HEIGHT, WIDTH)
    assert fit is not None
    packed = fit.height_px * fit.width_px / 1e6
    hashes = rng.integers(0, 2**63, NUM_HASHES, dtype=np.uint64)
    started_at = time.process_time()
    pairs_by_hash(hashes, 4)
    comparing = time.process_time() - started_at
    seen = reduce_for_scorers(image)
    nudity, text = (load_scorer(settings) for settings in (NudeNetSettings(), OcrSettings()))
    rates = {
        "decode_s": seconds_a_call(lambda: decode_image(content)) / megapixels,
        "pixel_scores_s": seconds_a_call(lambda: pixel_scores(image)) / megapixels,
        "fill_bucket_s": seconds_a_call(lambda: resize_and_crop(image, fit)) / megapixels,
        "encode_s": seconds_a_call(lambda: jpeg(resize_and_crop(image, fit), quality=95, subsampling=0))
        / packed
        - seconds_a_call(lambda: resize_and_crop(image, fit)) / packed,
        "nudenet_s": seconds_a_call(lambda: nudity.score([seen])),
        "ocr_s": seconds_a_call(lambda: text.score([seen])),
        "hash_pairs_a_s": NUM_HASHES**2 / 2 / comparing,
        "score_bytes": bytes_a_row(rng),
    }
    for name, value in rates.items():
        print(f"{name} {value:.4g}")


if __name__ == "__main__":
    main()
