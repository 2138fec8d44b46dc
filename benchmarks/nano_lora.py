"""What a LoRA of the nano model gives and takes: a new thing on demand, and its own six tasks.

Same prompts and seeds before and after, in one run. Prompts of the new thing are in wordings of tests; the
scorer knows its art from then on. The table goes to stdout, progress to stderr.

    python scripts/make_new_thing.py kangaroo runs/nano/new_thing      # needs npm
    lens train recipes/nano/lora.yaml
    python benchmarks/nano_lora.py --sheet docs/pictures/nano_lora.png
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nano_results import (
    SHEET_CELL_PX,
    EvalItem,
    ImageResult,
    Tally,
    tables_to_json,
    tally_by_task,
    total_tally,
)
from nano_score import (
    BASE,
    eval_items,
    eval_model,
    model_info,
    model_results,
    run_info,
    with_progress,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from make_new_thing import add_thing

from lens.core.resolution import buckets_for
from lens.nano.tasks import TaskPrompt
from lens.nano.world.caption_grammar import CaptionContent, brief_caption
from lens.nano.world.objects import COLOURS, OBJECT_CLASSES
from lens.nano.world.scenes import RELATIONS, SceneSpec, arrange_scene

SHOWN = 6
"""Pictures of the new thing, and of tasks, on the sheet."""


def main() -> int:
    options = parsed()
    known = tuple(OBJECT_CLASSES)
    add_thing(options.thing)
    own, new = (
        list(eval_items(options.prompts, options.seed)),
        list(asked_for(options.thing, known, options)),
    )
    contender = eval_model(options.model, options.steps, options.guidance)
    about = run_info(options) | model_info(contender, options)
    about |= {"lora": str(options.lora), "weight": options.lora_weight}
    for name, value in about.items():
        print(f"{name:<8} {value}")
    lora, results = options.lora, {}
    for state in ("before", "after"):
        options.lora = lora if state == "after" else None
        pictures = model_results(own + new, contender, options)
        results[state] = list(with_progress(state, pictures, len(own + new)))
    before, after = (by_task(results[state], options.thing) for state in ("before", "after"))
    print(f"\n{'':<12}{'of':>6}{'before':>9}{'after':>9}{'change':>9}")
    for task, tally in before.items():
        change = after[task].fraction - tally.fraction
        print(f"{task:<12}{tally.total:>6}{tally.fraction:>9.3f}{after[task].fraction:>9.3f}{change:>+9.3f}")
    if options.json:
        tables = {"before": before, "after": after}
        options.json.write_text(json.dumps(about | tables_to_json(tables), indent=1))
    if options.sheet:
        save_sheet(results["before"], results["after"], options.thing, options.sheet)
    return 0


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--model", default="lens-nano", help="a known name or a folder")
    parser.set_defaults(processes=0)  # others would not know the new thing
    parser.add_argument("--lora", type=Path, default=Path("runs/nano/lora/export/lora.safetensors"))
    parser.add_argument("--lora-weight", type=float, default=0.75)
    parser.add_argument("--thing", default="kangaroo", help="icon of the new thing")
    parser.add_argument("--prompts", type=int, default=50, help="prompts a task, and of the new thing")
    parser.add_argument("--steps", type=int, help="the model's own by default")
    parser.add_argument("--guidance", type=float, help="the model's own by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="save pictures of before and after")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the numbers")
    parser.set_defaults(truth=False, solver="euler")
    return parser.parse_args()


def asked_for(thing: str, known: tuple[str, ...], options: argparse.Namespace):
    """Yield prompts of the new thing: alone, on a background, beside a thing that the model knows."""
    rng = np.random.default_rng(options.seed)
    ratios = list(buckets_for(BASE))
    for index in range(options.prompts):
        kind = index % 3
        background = str(rng.choice(list(COLOURS))) if kind else None
        other = str(rng.choice(known))
        groups = ((thing, 1), (other, 1)) if kind == 2 else ((thing, 1),)
        relation = RELATIONS[int(rng.integers(4))] if kind == 2 else None
        expected = SceneSpec(groups, background, ((0, relation, 1),) if relation else ())
        scene = arrange_scene(rng, groups, background or "white", relation, BASE, BASE)
        mention = CaptionContent(background is not None, relation is not None, detail=False)
        prompt = TaskPrompt(brief_caption(scene, rng, "test", mention), expected)
        yield EvalItem(thing, prompt, ratios[index % len(ratios)], options.seed + 90_000 + index)


def by_task(results: list[ImageResult], thing: str) -> dict[str, Tally]:
    """Count by task, the mean of the six next, the new thing last."""
    tallies = tally_by_task(results)
    passed = [result.score.passed for result in results if result.item.task == thing]
    return tallies | {"all six": total_tally(tallies), thing: Tally(sum(passed), len(passed))}


def save_sheet(before: list[ImageResult], after: list[ImageResult], thing: str, path: Path) -> None:
    """Save pictures of the same prompts and seeds: a row before, a row after, twice."""
    width, height = SHEET_CELL_PX
    sheet = Image.new("RGB", (SHOWN * width, 4 * height), "white")
    pen = ImageDraw.Draw(sheet)
    for half, is_new in enumerate((True, False)):
        for row, results in enumerate((before, after)):
            chosen = [result for result in results if (result.item.task == thing) == is_new]
            chosen.sort(key=lambda result: result.item.seed)
            every = max(1, len(chosen) // SHOWN)
            for column, result in enumerate(chosen[::every][:SHOWN]):
                left, top = column * width + 6, (2 * half + row) * height + 6
                picture = Image.fromarray(result.image)
                sheet.paste(picture, (left, top))
                words = f"{('before', 'after')[row]}: {result.item.prompt.prompt}"
                words = "\n".join(textwrap.wrap(words, 32)[:3])
                pen.multiline_text((left, top + picture.height + 3), words, fill="black", spacing=1)
    sheet.save(path)


if __name__ == "__main__":
    sys.exit(main())
