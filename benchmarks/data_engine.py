"""Cost of the pixel scores of the data engine compared with decoding, by stage, and growth of its memory.

The baseline is decoding by Pillow: open, load, convert to RGB. The stages are those of the nine in the paper
that need no model: corrupt files (1), area (2), clarity (6), entropy (7), luminance (8). The perceptual hash,
which near duplicates (9) use, is shown too. Each image is timed for all stages in turn, so that a slow moment
of the machine affects all of them. Memory is the peak of a process that scores as a build does.

    python benchmarks/data_engine.py --images FOLDER [--count 2000] [--memory 1000 10000]
    python benchmarks/data_engine.py --peers [--count 400] [--workers 2] [--peer-python PYTHON]

With --peers a whole build, scores included, is compared with a Pillow process pool that writes through
webdataset, and with img2dataset. Those compute no scores. All get the same images and JPEG settings.
img2dataset has no buckets, so it crops to one size. Starts and imports count, as each tool has processes of
its own. The peers come from another Python if one is given.

Without --images it generates JPEGs of several sizes, smooth and rough.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lens.data.buckets import best_fit
from lens.data.build.settings import ShardSettings
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
    parser.add_argument("--peers", action="store_true", help="compare a whole build with other tools")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of each tool")
    parser.add_argument("--peer-python", default=sys.executable, help="Python that has the peers")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of Pillow, about unusual or large images
    if options.measure:
        return measured_memory(options.images, options.measure)
    if options.peers:
        return compare_with_peers(options.count, options.workers, options.peer_python)
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


BUILD = """
import json, sys
from pathlib import Path
from lens.cli.main import main
source = {"kind": "folder", "path": sys.argv[1]}
filters = {"min_area_px": 0, "max_nsfw": None, "min_aesthetics": None, "max_watermark": None}
recipe = Path(sys.argv[2] + ".json")
recipe.write_text(json.dumps({
    "out": sys.argv[2], "source": source, "filters": filters, "num_workers": int(sys.argv[3]),
}))
sys.exit(main(["data", "build", str(recipe)]))
"""
POOL = """
import io, json, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from PIL import Image, ImageOps
import webdataset
SIZES = json.loads(sys.argv[4])
def convert(path):
    image = Image.open(path).convert("RGB")
    size = tuple(SIZES[f"{image.width}x{image.height}"])
    buffer = io.BytesIO()
    fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    fitted.save(buffer, "JPEG", quality=95, subsampling=0)
    return {"__key__": path.stem, "jpg": buffer.getvalue(), "txt": path.with_suffix(".txt").read_bytes()}
if __name__ == "__main__":
    out = Path(sys.argv[2])
    out.mkdir()
    paths = sorted(Path(sys.argv[1]).glob("*.jpg"))
    with ProcessPoolExecutor(int(sys.argv[3])) as pool, webdataset.TarWriter(str(out / "0.tar")) as tar:
        for sample in pool.map(convert, paths, chunksize=16):
            tar.write(sample)
"""
IMG2DATASET = """
import sys
from pathlib import Path
from img2dataset import download
if __name__ == "__main__":
    urls = Path(sys.argv[2] + ".txt")
    urls.write_text("".join(f"{path.as_uri()}\\n" for path in sorted(Path(sys.argv[1]).glob("*.jpg"))))
    download(
        url_list=str(urls), output_folder=sys.argv[2], output_format="webdataset", input_format="txt",
        processes_count=int(sys.argv[3]), thread_count=4, image_size=512, resize_mode="center_crop",
        encode_quality=95, number_sample_per_shard=64, enable_wandb=False,
    )
"""


def compare_with_peers(count: int, workers: int, peer_python: str) -> int:
    """Print the wall and CPU seconds of a build and of each peer; return 1 if the pool is faster."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "in"
        where.mkdir()
        generate_images(where, count)
        sizes = {}
        for path in sorted(where.glob("*.jpg")):
            path.with_suffix(".txt").write_text(f"An image named {path.stem}.")
            width, height = Image.open(path).size
            fit = best_fit(height, width, ShardSettings.of({}).bases)
            assert fit is not None, path
            sizes[f"{width}x{height}"] = (fit.width_px, fit.height_px)
        print(f"{count} generated JPEGs, {workers} workers each, JPEG quality 95")
        scripts = {
            "lens, with scores": [sys.executable, BUILD, ""],
            "Pillow pool, webdataset": [peer_python, POOL, json.dumps(sizes)],
            "img2dataset (512 x 512)": [peer_python, IMG2DATASET, ""],
        }
        spent: dict[str, tuple[float, float, int]] = {}
        for number, (name, (python, script, extra)) in enumerate(scripts.items()):
            out = Path(folder) / f"out{number}"
            found = run_tool(python, script, where, out, workers, extra)
            if found is not None:
                spent[name] = found
            else:
                print(f"NOT MEASURED: {name}: {python} does not have it")
    own = spent["lens, with scores"]
    print(f"{'tool':<26}{'images':>8}{'wall s':>9}{'CPU s':>9}{'lens/it wall':>14}{'lens/it CPU':>13}")
    for name, (wall, cpu, written) in spent.items():
        print(f"{name:<26}{written:>8}{wall:>9.1f}{cpu:>9.1f}{own[0] / wall:>14.2f}{own[1] / cpu:>13.2f}")
    pool = spent.get("Pillow pool, webdataset")
    return int(pool is not None and own[0] > pool[0])


def run_tool(
    python: str, script: str, where: Path, out: Path, workers: int, extra: str
) -> tuple[float, float, int] | None:
    """Return the wall and CPU seconds of a tool and the images that it wrote; None where it is missing."""
    path = out.with_suffix(".py")
    path.write_text(script)
    before, started_at = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [python, str(path), str(where), str(out), str(workers), extra]
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - started_at, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{path.name} failed:\n{done.stderr[-2000:]}")
    written = 0
    for shard in sorted(out.rglob("*.tar")):
        with tarfile.open(shard) as tar:
            written += sum(name.endswith(".jpg") for name in tar.getnames())
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, written


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
