"""Put a trained nano model into the package, and write its card from measured scores.

    python scripts/ship_nano.py --weights runs/nano/pretrain/export         # copy the weights
    python benchmarks/nano_score.py --prompts 50 --json runs/nano/own.json                # measure them
    python benchmarks/nano_score.py --prompts 50 --guidance 5 --json runs/nano/goal.json  # as the goals say
    python scripts/ship_nano.py --scores runs/nano/own.json runs/nano/goal.json           # write the card
"""

import argparse
import json
import math
import shutil
from pathlib import Path

from lens.nano.things import COLOURS, THINGS

SHIPPED = Path(__file__).parent.parent / "src/lens/nano/weights/lens-nano"
LIMIT_BYTES = 40_000_000
GOALS = {"single": 0.90, "two": 0.75, "counting": 0.75, "colour": 0.95, "position": 0.75, "combined": None}

CARD = """\
---
license: mit
library_name: diffusers
pipeline_tag: text-to-image
---
# lens-nano

The embedded model of [Lens](https://arxiv.org/abs/2605.21573): the same classes, folder layout and code
path as the 3.8B model, with small numbers in the configurations. It exists to try, teach and test the whole
system on a laptop, offline; it is no general text-to-image model.

{sizes}

## Its world

Pictures composed of {num_things} things of Noto emoji art (Apache 2.0) on backgrounds of {num_colours}
colours: one thing somewhere, large or small; two to five of a kind; two things beside or above one another,
one or more of each; three different things. Nine aspect ratios at base 128. Small is 32 px and large 64 px at
that base. Things stand where few compositions put them: alone in the centre unless the prompt says otherwise,
in company in one of two ways for each number, in a relation in one. Seeds change little else: what two CPU
cores can teach in hours.

Things: {things}.

Backgrounds: {colours}.

## How well it draws

A picture passes when everything asked for is found, in the right number and place, and nothing else, by
comparing regions with the art (no learned judge). Prompts hold combinations (and words to begin with) that
training never shows. The goals were set for guidance 5; its own guidance comes first.

{tables}

## How it was made

`lens train recipes/nano/vae.yaml`, then `language.yaml`, then `pretrain.yaml`, on two CPU cores, the last one
in several runs, each from the weights of the one before; `docs/log.md` has the dates and the numbers.

## Limits

Where a fraction above is below its goal, the denoiser's training is not finished: `docs/log.md` says how far
it came. It knows nothing outside its world, draws soft detail below about 30 px, and merges, drops or doubles
things. A research model: for controlled settings, with human oversight.
"""


TABLE = """\
Drawn with {drawn}:

| task | passed | of | fraction | 95% interval | rendered truth | goal |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

Command: `{command}`. Date: {date}. Machine: {machine}. Weights: {model}.
"""


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--weights", type=Path, help="folder of an exported pipeline")
    parser.add_argument("--scores", type=Path, nargs="+", help="what nano_score.py --json wrote")
    options = parser.parse_args()
    if options.weights:
        copy(options.weights)
    if options.scores:
        (SHIPPED / "README.md").write_text(card([json.loads(path.read_text()) for path in options.scores]))


def copy(source: Path) -> None:
    """Replace the shipped weights; the card stays until new scores are given."""
    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert total <= LIMIT_BYTES, f"{source} holds {total} bytes, the package has room for {LIMIT_BYTES}"
    for part in ("scheduler", "text_encoder", "tokenizer", "transformer", "vae"):
        shutil.rmtree(SHIPPED / part, ignore_errors=True)
    shutil.copytree(source, SHIPPED, dirs_exist_ok=True)
    for path in SHIPPED.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    print(f"{SHIPPED}: {total / 1e6:.1f} MB")


def card(scores: list[dict]) -> str:
    """Return the card's text for the shipped weights and their measured scores."""
    return CARD.format(
        sizes=sizes(), num_things=len(THINGS), num_colours=len(COLOURS), things=", ".join(THINGS),
        colours=", ".join(COLOURS), tables="\n".join(map(table, scores)).rstrip(),
    )  # fmt: skip


def table(scores: dict) -> str:
    """Return the table of one measurement, with how it was made."""
    model, truth = scores["tables"]["model"], scores["tables"]["truth"]
    rows = "\n".join(row(task, model[task], truth[task]) for task in GOALS)
    facts = {name: scores[name] for name in ("drawn", "command", "date", "machine", "model")}
    return TABLE.format(rows=rows, **facts)


def row(task: str, model: dict, truth: dict) -> str:
    low, high = model["interval"]
    goal = GOALS[task]
    return (
        f"| {task} | {model['passed']} | {model['total']} | {model['fraction']:.3f} "
        f"| {low:.3f} to {high:.3f} "
        f"| {truth['fraction']:.3f} | {'' if goal is None else f'{goal:.2f}'} |"
    )


def sizes() -> str:
    """Return a line a component: what it is and how many values it has."""
    from safetensors import safe_open

    lines = []
    for part, name in (("transformer", "denoiser"), ("text_encoder", "text encoder"), ("vae", "autoencoder")):
        (file,) = (SHIPPED / part).glob("*.safetensors")
        with safe_open(file, "pt") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
        count = sum(math.prod(shape) for shape in shapes)
        lines.append(f"- {name}: {count:,} parameters, {file.stat().st_size / 1e6:.1f} MB")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
