"""Score the nano model on its six tasks: rendered ground truth first, then the model's own pictures.

Prompts are held out; the nine ratios of base 128 take turns. No learned judge: see lens.nano.scorer.
Intervals are Wilson's at 95%. The table goes to stdout, progress to stderr.

    python benchmarks/nano_score.py             # 100 prompts a task
    python benchmarks/nano_score.py --truth     # the scorer alone, on rendered ground truth
    python benchmarks/nano_score.py --model FOLDER --prompts 20 --contact-sheet sheet.png --json scores.json
"""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lens.core.geometry import buckets_for
from lens.nano.scenes import draw
from lens.nano.scorer import Verdict, score
from lens.nano.tasks import TASKS, TaskPrompt, task_prompts, task_scene

BASE = 128
SHEET_CELL_PX = (200, 236)
SHEET_COLUMNS = 9


class Ask(NamedTuple):
    """One picture to make: what it must show, in which shape, from which seed."""

    task: str
    prompt: TaskPrompt
    ratio: str
    seed: int


class Result(NamedTuple):
    """One picture, judged."""

    ask: Ask
    picture: NDArray[np.uint8]
    verdict: Verdict


class Tally(NamedTuple):
    """Pictures that passed, of how many."""

    passed: int
    total: int

    @property
    def fraction(self) -> float:
        return self.passed / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's interval at 95%."""
        z, n, p = 1.959964, self.total, self.fraction
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def main() -> int:
    options = parsed()
    asks = list(asked(options.prompts, options.seed))
    about = described(options)
    for name, value in about.items():
        print(f"{name:<8} {value}")
    truth = list(with_progress("truth", true_pictures(asks), len(asks)))
    tables = {"truth": tallied(truth)}
    shown = truth
    if not options.truth:
        started_at = time.perf_counter()
        shown = list(with_progress("model", drawn_pictures(asks, options), len(asks)))
        about["seconds_a_picture"] = round((time.perf_counter() - started_at) / len(asks), 3)
        tables["model"] = tallied(shown)
        print(f"{'time':<8} {about['seconds_a_picture']} s a picture, in batches of up to {options.batch}")
    for name, tallies in tables.items():
        show(name, tallies)
    if options.contact_sheet:
        save_sheet(shown, options.contact_sheet)
    if options.json:
        saved = about | {"tables": as_numbers(tables), "pictures": as_records(shown)}
        options.json.write_text(json.dumps(saved, indent=1))
    return 0


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--model", default="lens-nano", help="a known name or a folder")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="an adapter to draw with")
    parser.add_argument("--prompts", type=int, default=100, help="prompts a task")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, help="the model's own by default")
    parser.add_argument("--solver", default="euler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--truth", action="store_true", help="score rendered ground truth alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save numbers and reasons")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE.png", help="save all pictures, labelled")
    options = parser.parse_args()
    if options.guidance is None and not options.truth:
        options.guidance = own_guidance(options.model)
    return options


def own_guidance(model: str) -> float:
    """Return the guidance that a model draws with where nobody asks for another."""
    from lens.models.checkpoints.catalog import resolve_model
    from lens.sampling.defaults import sampling_defaults

    index = json.loads((Path(resolve_model(model)) / "model_index.json").read_text())
    variant, guidance = index.get("lens_variant") or "lens", index.get("default_guidance")
    return sampling_defaults(variant, guidance=guidance).guidance_scale


def asked(prompts_a_task: int, seed: int) -> Iterator[Ask]:
    """Yield every prompt of every task, the nine ratios in turn."""
    ratios = list(buckets_for(BASE))
    for number, task in enumerate(TASKS):
        for index, prompt in enumerate(task_prompts(task, prompts_a_task, seed)):
            yield Ask(task, prompt, ratios[index % len(ratios)], seed + 10_000 * number + index)


def true_pictures(asks: list[Ask]) -> Iterator[Result]:
    """Yield a rendered scene for each prompt, judged."""
    for ask in asks:
        scene = task_scene(ask.prompt, np.random.default_rng(ask.seed), *buckets_for(BASE)[ask.ratio])
        picture = np.round((draw(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
        yield Result(ask, picture, score(picture, ask.prompt.expected))


def drawn_pictures(asks: list[Ask], options: argparse.Namespace) -> Iterator[Result]:
    """Yield the model's picture for each prompt, judged; prompts of one shape share batches."""
    import torch

    from lens import LensPipeline

    pipeline = LensPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    if options.lora:
        pipeline.load_lora_weights(options.lora)
    if torch.cuda.is_available():
        pipeline.to("cuda")
    by_ratio: defaultdict[str, list[Ask]] = defaultdict(list)
    for ask in asks:
        by_ratio[ask.ratio].append(ask)
    for ratio, same in by_ratio.items():
        height, width = buckets_for(BASE)[ratio]
        for start in range(0, len(same), options.batch):
            batch = same[start : start + options.batch]
            (images,) = pipeline(
                [ask.prompt.prompt for ask in batch], height=height, width=width,
                num_inference_steps=options.steps, guidance_scale=options.guidance, solver=options.solver,
                generator=[torch.Generator().manual_seed(ask.seed) for ask in batch],
                return_dict=False,
            )  # fmt: skip
            for ask, image in zip(batch, images, strict=True):
                picture = np.asarray(image.convert("RGB"))
                yield Result(ask, picture, score(picture, ask.prompt.expected))


def with_progress(name: str, results: Iterator[Result], total: int) -> Iterator[Result]:
    """Pass results on and count them on stderr."""
    passed = 0
    for count, result in enumerate(results, 1):
        passed += result.verdict.passed
        print(f"\r{name}: {count} of {total}, {passed} passed", end="", file=sys.stderr, flush=True)
        yield result
    print(file=sys.stderr)


def tallied(results: list[Result]) -> dict[str, Tally]:
    """Count by task, in the tasks' order."""
    passed: defaultdict[str, list[bool]] = defaultdict(list)
    for result in results:
        passed[result.ask.task].append(result.verdict.passed)
    return {task: Tally(sum(passed[task]), len(passed[task])) for task in TASKS if passed[task]}


def show(name: str, tallies: dict[str, Tally]) -> None:
    print(f"\n{name:<12}{'passed':>8}{'of':>6}{'fraction':>10}   95% interval")
    for task, tally in tallies.items():
        low, high = tally.interval
        print(f"{task:<12}{tally.passed:>8}{tally.total:>6}{tally.fraction:>10.3f}   {low:.3f} to {high:.3f}")
    mean = sum(tally.fraction for tally in tallies.values()) / len(tallies)
    print(f"{'mean':<12}{'':>14}{mean:>10.3f}")


def described(options: argparse.Namespace) -> dict[str, object]:
    """Return what a reader needs to repeat the table."""
    about: dict[str, object] = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    machine = f"{cpu_model()}, {os.cpu_count()} cores"
    if not options.truth:
        import torch

        from lens.app.file_hashes import content_hash
        from lens.models.checkpoints.catalog import resolve_model

        machine += f", {torch.get_num_threads()} threads, torch {torch.__version__}"
        if torch.cuda.is_available():
            machine += f", {torch.cuda.get_device_name()}"
        about["model"] = f"{options.model}, hash {content_hash(Path(resolve_model(options.model)))[:10]}"
        drawn = f"{options.steps} steps, guidance {options.guidance:g}, {options.solver}"
        about["drawn"] = f"{drawn}, seed {options.seed}"
    return about | {"machine": machine}


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def as_numbers(tables: dict[str, dict[str, Tally]]) -> dict[str, dict[str, dict[str, object]]]:
    return {
        name: {
            task: {**tally._asdict(), "fraction": tally.fraction, "interval": tally.interval}
            for task, tally in tallies.items()
        }
        for name, tallies in tables.items()
    }


def as_records(results: list[Result]) -> list[dict[str, object]]:
    return [
        {"task": ask.task, "prompt": ask.prompt.prompt, "ratio": ask.ratio, "seed": ask.seed,
         "passed": verdict.passed, "reasons": verdict.reasons}
        for ask, _, verdict in results
    ]  # fmt: skip


def save_sheet(results: list[Result], path: Path) -> None:
    """Save all pictures on one sheet, prompts below them, framed green when they pass and red when not."""
    order = {task: place for place, task in enumerate(TASKS)}
    results = sorted(results, key=lambda result: (order[result.ask.task], result.ask.seed))
    width, height = SHEET_CELL_PX
    num_rows = math.ceil(len(results) / SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, num_rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (ask, picture, verdict) in enumerate(results):
        row, column = divmod(index, SHEET_COLUMNS)
        left, top = column * width + 6, row * height + 6
        image = Image.fromarray(picture)
        frame = (left - 3, top - 3, left + image.width + 2, top + image.height + 2)
        pen.rectangle(frame, fill="green" if verdict.passed else "red")
        sheet.paste(image, (left, top))
        words = "; ".join((f"{ask.task}: {ask.prompt.prompt}", *verdict.reasons))
        pen.multiline_text(
            (left, top + image.height + 4), "\n".join(textwrap.wrap(words, 32)), fill="black", spacing=1
        )
    sheet.save(path)


if __name__ == "__main__":
    sys.exit(main())
