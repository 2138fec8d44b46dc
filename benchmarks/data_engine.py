"""Cost of the pixel scores of the data engine compared with decoding, by stage, and growth of its memory.

The baseline is decoding by Pillow: open, load, convert to RGB. The stages are those of the nine in the paper
that need no model: corrupt files (1), area (2), clarity (6), entropy (7), luminance (8). The perceptual hash,
which near duplicates (9) use, is shown too. Each image is timed for all stages in turn, so that a slow moment
of the machine affects all of them. Memory is the peak of a process that scores as a build does.

    python benchmarks/data_engine.py --images FOLDER [--count 2000] [--memory 1000 10000]

Without --images it generates JPEGs of several sizes, smooth and rough.
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lens.data.io.image_decoding import ImageError, decode_image
from lens.data.scorers import pixel_stats
from lens.data.sources.image_folder import ImageFolderSource

MAX_SHARE = 0.5
MAX_GROWTH = 1.15
COUNTED = ("safe decoding", "clarity", "entropy", "luminance")
"""Stages (1), (6), (7), (8); (2) compares two numbers."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", "--pictures", type=Path, help="folder of images (default: generated)")
    parser.add_argument("--count", type=int, default=400, help="images to time, evenly spread")
    parser.add_argument("--memory", type=int, nargs=2, help="images of two runs whose memory is compared")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of Pillow, about unusual or large images
    if options.measure:
        return measured_memory(options.images, options.measure)
    with tempfile.TemporaryDirectory() as folder:
        where = options.images or generate_images(Path(folder), options.count)
        share = timed(list(spread(where, options.count)))
        growth = memory_growth(where, options.memory) if options.memory else 1.0
    return int(share > MAX_SHARE or growth > MAX_GROWTH)


def timed(contents: list[bytes]) -> float:
    """Print images/s by stage; return the cost of the stages without models beyond decoding, as a share."""
    spent: Counter[str] = Counter()
    megapixels, count = 0.0, 0
    for content in contents:
        started_at = time.perf_counter()
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
        except Exception:
            continue
        spent["Pillow"] += time.perf_counter() - started_at
        for name, seconds in stages(content):
            spent[name] += seconds
        megapixels += image.width * image.height / 1e6
        count += 1
    extra = sum(spent[name] for name in COUNTED) - spent["Pillow"]
    share = extra / spent["Pillow"]
    print(f"{count} images, {megapixels / count:.2f} megapixels on average, one thread")
    print(f"{'stage':<18}{'images/s':>10}{'ms per image':>14}{'of decoding':>13}")
    for name, seconds in spent.items():
        ratio = seconds / spent["Pillow"]
        print(f"{name:<18}{count / seconds:>10.0f}{1e3 * seconds / count:>14.2f}{ratio:>13.2f}")
    print(f"stages without models beyond decoding: {share:.2f} (target: at most {MAX_SHARE:.2f})")
    return share


def stages(content: bytes) -> Iterator[tuple[str, float]]:
    """Yield the seconds of each stage on one image, in the order of `pixel_scores`."""
    clock = time.perf_counter
    start = clock()
    try:
        image = decode_image(content).image
    except ImageError:
        return
    yield "safe decoding", clock() - start
    start = clock()
    image = pixel_stats.reduce_to_short_side(image)
    grey = image.convert("L")
    small = pixel_stats.resize_to_common_scale(grey)
    pixel_stats.clarity(np.asarray(small))
    yield "clarity", clock() - start
    start = clock()
    pixel_stats.entropy(grey)
    yield "entropy", clock() - start
    start = clock()
    pixel_stats.luminance(image)
    yield "luminance", clock() - start
    start = clock()
    pixel_stats.perceptual_hash(small)
    yield "perceptual hash", clock() - start


def memory_growth(where: Path, counts: list[int]) -> float:
    """Print the peak memory of two runs and return the ratio of the second to the first."""
    peaks = []
    for count in counts:
        command = [sys.executable, __file__, "--images", str(where), "--measure", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
        print(f"peak memory while {count} images are scored: {peaks[-1]:.0f} MiB")
    growth = peaks[1] / peaks[0]
    print(f"ratio: {growth:.2f} (target: at most {MAX_GROWTH:.2f})")
    return growth


def measured_memory(where: Path, count: int) -> int:
    """Score `count` entries in parts, as a worker does, and print the peak of this process in MiB."""
    from lens.data.build.inventory import take_inventory
    from lens.data.build.reader import EntryReader
    from lens.data.build.scoring import score_part
    from lens.data.build.settings import BuildSettings

    with tempfile.TemporaryDirectory() as out:
        source = {"kind": "folder", "path": str(where)}
        settings = BuildSettings.of({"out": out, "source": source, "part_size": 100})
        inventory = take_inventory(settings)
        reader = EntryReader(settings.all_sources, Path(out) / "downloads")
        # A folder with fewer images is scored several times.
        for number in range(count // 100):
            scores = Path(out) / f"scores{number // inventory.num_parts}"
            score_part(inventory, number % inventory.num_parts, scores, reader)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return 0


def spread(where: Path, count: int) -> Iterator[bytes]:
    """Yield the bytes of evenly spread images of a folder."""
    entries = list(ImageFolderSource(path=where).entries())
    for place in np.linspace(0, len(entries) - 1, min(count, len(entries))).round().astype(int):
        yield Path(entries[place].path).read_bytes()


def generate_images(where: Path, count: int) -> Path:
    """Save JPEGs of several sizes, of random colours enlarged smoothly or in steps; return their folder."""
    rng = np.random.default_rng(0)
    sizes = ((640, 480), (1000, 750), (1024, 768), (1600, 1200), (800, 1200))
    for index in range(count):
        width, height = sizes[index % len(sizes)]
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        how = Image.Resampling.BICUBIC if index % 2 else Image.Resampling.NEAREST
        Image.fromarray(coarse).resize((width, height), how).save(where / f"{index:05d}.jpg", quality=90)
    return where


if __name__ == "__main__":
    raise SystemExit(main())
