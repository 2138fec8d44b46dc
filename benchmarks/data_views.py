"""Time and memory of a view of many samples, from generated scores without images.

The scores are distributed as those of real images: each of four thresholds drops a tenth, one sample in
twenty has a near duplicate, one in a hundred an exact copy. The time of comparing all pairs of hashes is
extrapolated from a thousandth of them.

    python benchmarks/data_views.py [--samples 1000000]
"""

import argparse
import resource
import tempfile
import time

import numpy as np

from lens.data.build import inventory, scoring
from lens.data.build.inventory import Inventory
from lens.data.build.scoring import PIXEL_SCORES_FOLDER
from lens.data.build.selection import select_samples
from lens.data.build.settings import BuildSettings
from lens.data.build.view import write_view
from lens.data.io.parquet import part_path, write_table

SIDES_PX = (200, 500, 640, 768, 1024, 1200, 1600, 2048)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    count = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as where:
        settings = BuildSettings.of({
            "out": where, "source": {"kind": "folder", "path": where}, "part_size": 50_000,
            "filters": {
                "max_nsfw": None, "min_aesthetics": None, "max_watermark": None, "min_clarity": 0.1,
                "min_entropy": 0.1, "min_luminance": 0.1,
            },
        })  # fmt: skip
        listed, hashes = write_random_scores(settings, count)
        before_mib = peak_mib()
        started_at = time.perf_counter()
        selection = select_samples(settings, listed, settings.out / "scores")
        selected_s = time.perf_counter() - started_at
        view = write_view(settings, selection, {}, {})
        seconds = time.perf_counter() - started_at
    num_kept, num_near = view.counts["kept"], view.counts["near_duplicate"]
    print(f"{count:,} samples, {num_kept:,} kept, {num_near:,} near duplicates")
    each_us, each_kib = 1e6 * seconds / count, 1024 * (peak_mib() - before_mib) / count
    print(f"view: {seconds:.1f} s, {each_us:.1f} us per sample; selection: {selected_s:.1f} s")
    print(f"memory: {each_kib:.2f} KiB per sample beyond {before_mib:.0f} MiB")
    all_s = 1000 * seconds_of_a_thousandth(hashes)
    print(f"comparing all pairs of hashes would take {all_s:.0f} s, {all_s / seconds:.1f} x the whole view")
    return 0


def write_random_scores(settings: BuildSettings, count: int) -> tuple[Inventory, np.ndarray]:
    """Write an inventory and random scores of samples that do not exist."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    copies = rng.permutation(count)[: count // 20]
    hashes[copies] = hashes[rng.permutation(count)[: count // 20]] ^ np.uint64(1 << 17)
    names = rng.integers(0, 2**63, (count, 4), dtype=np.uint64)
    repeats = rng.permutation(count)[: count // 100]
    names[repeats] = names[repeats[::-1]]
    size, folder = settings.part_size, settings.out / "inventory"
    num_parts = -(-count // size)
    for part in range(num_parts):
        rows = np.arange(part * size, min(count, (part + 1) * size))
        listed = {
            "source": [0] * len(rows), "offset": [0] * len(rows),
            "address": [f"{row:012d}.jpg" for row in rows],
            "path": [f"/pictures/{row:012d}.jpg" for row in rows], "num_bytes": [9] * len(rows),
            "caption": [""] * len(rows), "licence": ["CC0"] * len(rows),
        }  # fmt: skip
        write_table(part_path(folder, part), listed, inventory.SCHEMA)
        sides = rng.choice(SIDES_PX, (2, len(rows)))
        scored = {
            "id": ["".join(f"{word:016x}" for word in words) for words in names[rows].tolist()],
            "num_bytes": [9] * len(rows), "unreadable": [""] * len(rows), "detail": [None] * len(rows),
            "format": ["JPEG"] * len(rows), "notes": [[]] * len(rows), "height_px": sides[0],
            "width_px": sides[1], "area_px": (sides[0] * sides[1]).astype(float),
            "perceptual_hash": hashes[rows],
        } | {name: rng.random(len(rows)) for name in ("clarity", "entropy", "luminance")}  # fmt: skip
        write_table(part_path(settings.out / "scores" / PIXEL_SCORES_FOLDER, part), scored, scoring.SCHEMA)
    return Inventory(folder, num_parts, count), hashes


def seconds_of_a_thousandth(hashes: np.ndarray) -> float:
    """Return the time of a thousandth of all comparisons."""
    rows = max(1, len(hashes) // 2000)
    started_at = time.perf_counter()
    for row in range(rows):
        np.flatnonzero(np.bitwise_count(hashes[row] ^ hashes) <= 4)
    return time.perf_counter() - started_at


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
