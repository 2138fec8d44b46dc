"""Evaluate a LoRA of the nano model before and after: a new object on demand, and the model's own six tasks.

Prompts and seeds are the same before and after. Prompts of the new object use the phrases of tests, and the
scorer knows its sprite. The table goes to stdout, progress to stderr.

    python scripts/make_new_thing.py kangaroo runs/nano/new_thing      # needs npm
    lens train recipes/nano/lora.yaml
    python scripts/eval_nano_lora.py --sheet docs/pictures/nano_lora.png
"""

import argparse
import json
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from make_new_thing import add_thing
from PIL import Image, ImageDraw

from lens.core.resolution import buckets_for
from lens.evals.nano import (
    BASE,
    NanoEvalOptions,
    eval_items,
    eval_model,
    model_info,
    model_results,
    report_progress,
    run_info,
)
from lens.evals.nano_report import (
    SHEET_CELL_PX,
    EvalItem,
    ImageResult,
    Tally,
    tables_to_json,
    tally_by_task,
    total_tally,
)
from lens.nano.tasks import TaskPrompt
from lens.nano.world.caption_grammar import CaptionContent, brief_caption
from lens.nano.world.colours import COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scenes import RELATIONS, ObjectGroup, SceneSpec, arrange_scene

IMAGES_PER_ROW = 6
"""Images of the new object, and of the six tasks, in each row of the sheet."""


def main() -> int:
    options = parse_options()
    known = tuple(OBJECT_CLASSES)
    add_thing(options.thing)
    items = [
        *eval_items(options.prompts, options.seed),
        *new_object_items(options.thing, known, options.prompts, options.seed),
    ]
    model = eval_model(options.model, options.steps, options.guidance)
    # Images are scored in this process: others would not know the new object.
    plain = NanoEvalOptions(seed=options.seed, batch_size=options.batch)
    info = run_info(shlex.join(["python", *sys.argv])) | model_info(model, plain)
    info |= {"lora": str(options.lora), "weight": options.lora_weight}
    for name, value in info.items():
        print(f"{name:<8} {value}")
    adapted = plain._replace(lora=options.lora, lora_weight=options.lora_weight)
    results = {}
    for state, sampling in (("before", plain), ("after", adapted)):
        images = model_results(items, model, sampling)
        results[state] = list(report_progress(state, images, len(items), print_progress))
        print(file=sys.stderr)
    before, after = (by_task(results[state], options.thing) for state in ("before", "after"))
    print(f"\n{'':<12}{'of':>6}{'before':>9}{'after':>9}{'change':>9}")
    for task, tally in before.items():
        change = after[task].fraction - tally.fraction
        print(f"{task:<12}{tally.total:>6}{tally.fraction:>9.3f}{after[task].fraction:>9.3f}{change:>+9.3f}")
    if options.json:
        tables = {"before": before, "after": after}
        options.json.write_text(json.dumps(info | tables_to_json(tables), indent=1))
    if options.sheet:
        save_sheet(results["before"], results["after"], options.thing, options.sheet)
    return 0


def parse_options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--model", default="lens-nano", help="a known name or a folder")
    parser.add_argument("--lora", type=Path, default=Path("runs/nano/lora/export/lora.safetensors"))
    parser.add_argument("--lora-weight", type=float, default=0.75)
    parser.add_argument("--thing", default="kangaroo", help="icon of the new object")
    parser.add_argument("--prompts", type=int, default=50, help="prompts of each task and of the new object")
    parser.add_argument("--steps", type=int, help="in place of the model's own number")
    parser.add_argument("--guidance", type=float, help="in place of the model's own scale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="save images of before and after")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the numbers")
    return parser.parse_args()


def new_object_items(thing: str, known: tuple[str, ...], num_prompts: int, seed: int) -> Iterator[EvalItem]:
    """Yield items of the new object: alone, on a background, beside an object that the model knows."""
    rng = np.random.default_rng(seed)
    ratios = list(buckets_for(BASE))
    for index in range(num_prompts):
        kind = index % 3
        background = str(rng.choice(list(COLOURS))) if kind else None
        other = str(rng.choice(known))
        groups = tuple(map(ObjectGroup, (thing, other) if kind == 2 else (thing,)))
        relation = RELATIONS[int(rng.integers(4))] if kind == 2 else None
        spec = SceneSpec(groups, background, ((0, relation, 1),) if relation else ())
        scene = arrange_scene(rng, groups, background or "white", relation, BASE, BASE)
        content = CaptionContent(background is not None, relation is not None, detail=False)
        prompt = TaskPrompt(brief_caption(scene, rng, "test", content), spec)
        yield EvalItem(thing, prompt, ratios[index % len(ratios)], seed + 90_000 + index)


def by_task(results: list[ImageResult], thing: str) -> dict[str, Tally]:
    """Count by task; then the mean of the six, and the new object last."""
    tallies = tally_by_task(results)
    passed = [result.score.passed for result in results if result.item.task == thing]
    return tallies | {"all six": total_tally(tallies), thing: Tally(sum(passed), len(passed))}


def print_progress(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done} of {total}", end="", file=sys.stderr, flush=True)


def save_sheet(before: list[ImageResult], after: list[ImageResult], thing: str, path: Path) -> None:
    """Save images of the same prompts and seeds: two rows of the new object, two of the six tasks."""
    width, height = SHEET_CELL_PX
    sheet = Image.new("RGB", (IMAGES_PER_ROW * width, 4 * height), "white")
    pen = ImageDraw.Draw(sheet)
    for half, is_new in enumerate((True, False)):
        for row, results in enumerate((before, after)):
            chosen = [result for result in results if (result.item.task == thing) == is_new]
            chosen.sort(key=lambda result: result.item.seed)
            every = max(1, len(chosen) // IMAGES_PER_ROW)
            for column, result in enumerate(chosen[::every][:IMAGES_PER_ROW]):
                left, top = column * width + 6, (2 * half + row) * height + 6
                image = Image.fromarray(result.image)
                sheet.paste(image, (left, top))
                words = f"{('before', 'after')[row]}: {result.item.prompt.prompt}"
                words = "\n".join(textwrap.wrap(words, 32)[:3])
                pen.multiline_text((left, top + image.height + 3), words, fill="black", spacing=1)
    sheet.save(path)


if __name__ == "__main__":
    sys.exit(main())
