"""Ship trained weights in the package as one of the nano models, and write model cards from measured scores.

The autoencoder, text encoder, tokenizer and scheduler are stored once, with lens-nano; the other models refer
to its folder. A model whose denoiser is that of lens-nano, as lens-nano-base is before RL, shares it as well.
A card is written only from scores of the weights that ship, which their hash identifies.

    python scripts/ship_nano.py --shared runs/nano/pretrain/export   # the shared parts, when they changed
    python scripts/ship_nano.py --model lens-nano-turbo --weights runs/nano/turbo/export
    lens eval nano --models lens-nano-base lens-nano lens-nano-turbo --json runs/own.json
    lens eval nano --models lens-nano lens-nano-turbo --prompts recipes/nano/prompts/*.jsonl \\
        --json runs/people.json
    python scripts/ship_nano.py --scores runs/own.json runs/people.json  # and files of other guidance scales
"""

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

from lens.models.checkpoints.diffusers_folder import SHARED_KEY, check_component, component_folder
from lens.models.checkpoints.hashing import content_hash, file_hash
from lens.models.checkpoints.registry import KNOWN_MODELS, PACKAGED_WEIGHTS
from lens.nano.tasks import TASKS
from lens.nano.world.colours import COLOURS
from lens.nano.world.objects import OBJECT_CLASSES

HOLDER = "lens-nano"
"""The model whose folder holds the shared parts."""
MODELS = [model.name for model in KNOWN_MODELS.values() if model.folder]
SHARED_PARTS = ("scheduler", "text_encoder", "tokenizer", "vae")
LIMIT_BYTES = 50_000_000
"""Largest size of one model with its shared parts."""
TOTAL_LIMIT_BYTES = 100_000_000
"""Largest size of all models together."""
GOALS = {"single": 0.90, "two": 0.75, "counting": 0.75, "colour": 0.95, "position": 0.75, "combined": None}
PROMPT_KINDS = {
    "words.jsonl": "a person's own words",
    "forms.jsonl": "case, bare nouns, plurals, typos",
    "many.jsonl": "six to eight of a kind",
    "details.jsonl": "coloured things, two relations, two sizes",
    "languages.jsonl": "eleven other languages",
    "signs.jsonl": "words of up to 8 letters on a sign",
    "dense.jsonl": "dense captions of 60 to 120 words",
}
"""Files of held-out prompts, written by hand, and what they are about."""
PROMPT_GOALS = {
    "lens-nano": dict(zip(PROMPT_KINDS, (0.80, 0.90, 0.60, 0.60, 0.80, 0.50, 0.70), strict=True)),
    "lens-nano-turbo": dict(zip(PROMPT_KINDS, (0.75, 0.85, 0.50, 0.50, 0.75, 0.40, 0.60), strict=True)),
}

CARD = """\
---
license: mit
library_name: diffusers
pipeline_tag: text-to-image
---
# {name}

{about}

{sizes}

## What it can generate

{world}

## Evaluation

An image passes if it shows every object of the prompt, in the right number and place, and nothing else. The
scorer compares regions of the image with the sprites; there is no learned judge. The combinations of objects
and the opening phrases of the prompts are held out from training.{about_goals}

{tables}

## Training

{training}

## Limits

{limits}
"""

ABOUT = """\
The embedded model of [Lens](https://arxiv.org/abs/2605.21573). It has the classes, the folder layout and the
code path of the 3.8B model, with smaller numbers in the configurations. Use it to try, teach and test the
whole system on a laptop, offline. It is not a general text-to-image model."""

ABOUT_OF = {
    "lens-nano": ABOUT,
    "lens-nano-base": """\
[lens-nano](../lens-nano/README.md) after supervised training, before reinforcement learning. This folder
holds only the denoiser; the other parts are in `lens-nano`, beside it. `save_pretrained` writes a complete
folder.""",
    "lens-nano-turbo": """\
[lens-nano](../lens-nano/README.md) distilled to four steps without guidance. This folder holds only the
denoiser; the other parts are in `lens-nano`, beside it. `save_pretrained` writes a complete folder.""",
}

WORLD = """\
Compositions of {num_objects} objects from Noto emoji art (Apache 2.0), on backgrounds of {num_colours}
colours:

- one object anywhere, small or large, many of them in another colour
- two to eight objects of a kind
- two or three kinds of objects, with up to two relations between them
- a sign with one to eight letters or digits
- nothing but a background

There are nine aspect ratios at base 128; at that base a small object is 32 px and a large one 64 px. Another
seed changes places and sizes, where the prompt leaves them open, among a few arrangements for each number of
objects. Prompts may be in English or in one of eleven other languages, of which the denoiser was trained on
English alone.

Objects: {objects}.

Backgrounds: {colours}."""

SAME_WORLD = """\
The world of [lens-nano](../lens-nano/README.md): {num_objects} objects, {num_colours} background colours."""

ABOUT_GOALS = " The goals were set for guidance 5; the default guidance comes first."

SUPERVISED = """\
`lens train recipes/nano/vae.yaml`, then `language.yaml`, then `pretrain.yaml`, on two CPU cores. The last
recipe ran several times, each time from the weights of the run before. `docs/log.md` has dates and
numbers."""

TRAINING_OF = {
    "lens-nano-base": SUPERVISED,
    "lens-nano": """\
`lens train {recipe}`: reinforcement learning (DiffusionNFT) on prompts of its world, with the exact scorer as
the reward. It started from the weights of [lens-nano-base](../lens-nano-base/README.md). `docs/log.md` has
dates and numbers.""",
    "lens-nano-turbo": """\
`lens train recipes/nano/turbo_trajectory.yaml`, on a GPU `turbo_gpu.yaml`: one step of the student learns
several guided steps of lens-nano-base. Then the difference between lens-nano and lens-nano-base, the result
of reinforcement learning, was added to the weights (`scripts/sum_weights.py`). The losses of the paper
(distribution matching, guidance augmentation, an adversarial loss) brought no gain within our compute budget.
`docs/log.md` has dates and numbers.""",
}

LIMITS_OF_TRAINING = """\
Where a fraction is below its goal, the denoiser needs more training; `docs/log.md` has its state."""

LIMITS_OF_WORLD = """\
The model knows nothing outside its world. It blurs detail below about 30 px, and it merges, drops or
duplicates objects. It is a research model: use it in controlled settings, with human oversight."""

LIMITS = f"{LIMITS_OF_TRAINING}\n{LIMITS_OF_WORLD}"

LIMITS_OF_TURBO = f"It is trained for four steps without guidance only.\n{LIMITS_OF_WORLD}"

TABLE = """\
Sampling: {drawn}.

| task | passed | of | fraction | 95% interval | rendered truth |{goal_head}
| --- | --- | --- | --- | --- | --- |{goal_line}
{rows}

Command: `{command}`. Date: {date}. Machine: {machine}. Weights: {name}, hash {short_hash}.
"""

PROMPT_TABLE = """\
Prompts as people write them, by hand and held out (`recipes/nano/prompts`). Sampling: {steps} steps, guidance
{guidance:g}, {solver}, seed {seed}, {seeds} a prompt.

| prompts | passed | of | fraction | 95% interval | goal |
| --- | --- | --- | --- | --- | --- |
{rows}

Command: `{command}`. Date: {date}. Machine: {machine}. Weights: {model}, hash {short_hash}.
"""

SIDE_BY_SIDE = """\
All models of that run, in batches of up to {batch}; speed is relative to {reference}:

| model | steps | guidance | mean of six tasks | 95% interval | s per image | s in the denoiser | speed |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}
"""

NOT_MEASURED = "Not measured yet: `lens eval nano --models {name}`."


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--model", choices=MODELS, help="model that the weights belong to")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="folder that holds its transformer")
    parser.add_argument("--shared", type=Path, metavar="FOLDER", help="pipeline that holds the shared parts")
    parser.add_argument("--scores", type=Path, nargs="+", metavar="FILE", help="from `lens eval nano --json`")
    options = parser.parse_args()
    if (options.model is None) != (options.weights is None):
        parser.error("--model and --weights go together")
    if options.shared:
        for part in SHARED_PARTS:
            replace_folder(options.shared / part, PACKAGED_WEIGHTS / HOLDER / part)
    if options.weights:
        ship(options.model, options.weights)
    if options.scores:
        files = [json.loads(path.read_text()) for path in options.scores]
        write_cards([one for values in files for one in (values if isinstance(values, list) else [values])])
    print(shipped_sizes())


def ship(name: str, source: Path, root: Path = PACKAGED_WEIGHTS) -> None:
    """Replace the denoiser of a shipped model; its card stays until new scores are given.

    Models that shared the denoiser of lens-nano keep it when lens-nano gets another.
    """
    check_component(source / "transformer", "transformer")
    target = root / name
    is_shared = name != HOLDER and denoiser_hash(source) == denoiser_hash(root / HOLDER)
    size = 0 if is_shared else size_of(source / "transformer")
    shared = sum(size_of(root / HOLDER / part) for part in SHARED_PARTS)
    sharing = [root / other for other in MODELS if name == HOLDER != other and shares_denoiser(root / other)]
    total = size_of(root) + size + size_of(target / "transformer") * (len(sharing) - 1)
    assert size + shared <= LIMIT_BYTES, f"{name} would take {size + shared} bytes of {LIMIT_BYTES}"
    assert total <= TOTAL_LIMIT_BYTES, f"all models would take {total} bytes of {TOTAL_LIMIT_BYTES}"
    for other in sharing:
        replace_folder(target / "transformer", other / "transformer")
    if is_shared:
        shutil.rmtree(target / "transformer", ignore_errors=True)
        target.mkdir(exist_ok=True)
    else:
        replace_folder(source / "transformer", target / "transformer")
    if name != HOLDER:
        index = json.loads((root / HOLDER / "model_index.json").read_text())
        index |= {"lens_variant": KNOWN_MODELS[name].variant, SHARED_KEY: f"../{HOLDER}"}
        write_json(target / "model_index.json", index)
    if not (target / "README.md").exists():
        (target / "README.md").write_text(card(name, [], root))


def replace_folder(source: Path, target: Path) -> None:
    """Replace a component by a copy; the path that its configuration came from is removed."""
    assert source.is_dir(), f"{source} is not there"
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=shutil.copyfile)
    if (config := draft / "config.json").is_file():
        values = json.loads(config.read_text())
        if values.pop("_name_or_path", None) is not None:
            write_json(config, values)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def write_cards(scores: list[dict[str, Any]], root: Path = PACKAGED_WEIGHTS) -> None:
    """Write the card of every model that has scores of the six tasks, with all that the scores say of it."""
    measured = [name for name in MODELS if any(one.get("name") == name for one in scores)]
    cards = {root / name / "README.md": card(name, scores, root) for name in measured}
    for path, text in cards.items():
        path.write_text(text)
        print(path)


def card(name: str, scores: list[dict[str, Any]], root: Path = PACKAGED_WEIGHTS) -> str:
    """Return the card's text for the shipped weights and their measured scores."""
    known, has_goals = KNOWN_MODELS[name], name != "lens-nano-turbo"
    world = WORLD if name == HOLDER else SAME_WORLD
    facts = {
        "num_objects": len(OBJECT_CLASSES), "num_colours": len(COLOURS), "objects": ", ".join(OBJECT_CLASSES),
        "colours": ", ".join(COLOURS),
    }  # fmt: skip
    is_tuned = name != HOLDER or denoiser_hash(root / HOLDER) != denoiser_hash(root / "lens-nano-base")
    return CARD.format(
        name=name, about=ABOUT_OF[name], sizes=sizes(root / name), world=world.format(**facts),
        about_goals=ABOUT_GOALS if has_goals else "", tables=tables(name, scores, root),
        training=(TRAINING_OF[name] if is_tuned else SUPERVISED).format(recipe=known.recipe),
        limits=LIMITS if has_goals else LIMITS_OF_TURBO,
    )  # fmt: skip


def denoiser_hash(folder: Path) -> str | None:
    """Return the hash of the denoiser of a model, or None where there is none."""
    path = component_folder(folder, "transformer") / "diffusion_pytorch_model.safetensors"
    return file_hash(path) if path.is_file() else None


def shares_denoiser(folder: Path) -> bool:
    return folder.is_dir() and not (folder / "transformer").is_dir()


def tables(name: str, scores: list[dict[str, Any]], root: Path) -> str:
    """Return the tables of the scores of a model, those of its defaults first, and the table of the run."""
    known, found = KNOWN_MODELS[name], content_hash(root / name)
    of_model = [one for one in scores if one.get("name") == name]
    of_prompts = [one for one in scores if one.get("model") == name]
    if not of_model:
        return NOT_MEASURED.format(name=name)
    for one in of_model + of_prompts:
        assert one["hash"] == found, f"scores of {name} are of {one['hash'][:10]}, shipped is {found[:10]}"
    own = [
        one for one in of_model
        if (one["steps"], one["guidance"]) == (known.num_inference_steps, known.guidance_scale)
    ]  # fmt: skip
    assert own, f"no scores of {name} are with {known.num_inference_steps} steps, {known.guidance_scale:g}"
    others = [one for one in of_model if one not in own]
    tasks = [one for one in scores if "tables" in one]
    run = [one for one in tasks if (one["command"], one["date"]) == (own[0]["command"], own[0]["date"])]
    texts = [table(one, has_goals=name != "lens-nano-turbo") for one in own + others]
    texts += [prompt_table(one) for one in of_prompts]
    return "\n".join(texts + [side_by_side(run)] * (len(run) > 1)).rstrip()


def prompt_table(scores: dict[str, Any]) -> str:
    """Return the table of one model on the files of prompts: a line a file, then a line a language."""
    goals = PROMPT_GOALS.get(scores["model"], {})
    files, languages = (scores["groups"].get(group, {}) for group in ("file", "language"))
    rows = [
        *(prompt_row(PROMPT_KINDS.get(file, file), tally, goals.get(file)) for file, tally in files.items()),
        *(prompt_row(f"language {code}", tally, None) for code, tally in sorted(languages.items())),
        prompt_row("all", scores, None),
    ]
    return PROMPT_TABLE.format(rows="\n".join(rows), short_hash=scores["hash"][:10], **scores)


def prompt_row(name: str, tally: dict[str, Any], goal: float | None) -> str:
    low, high = tally["interval"]
    shown = "" if goal is None else f"{goal:.2f}"
    counts = f"{tally['passed']} | {tally['of']} | {tally['share']:.3f}"
    return f"| {name} | {counts} | {low:.3f} to {high:.3f} | {shown} |"


def table(scores: dict[str, Any], *, has_goals: bool) -> str:
    """Return the table of one measurement, with its command, date and machine."""
    model, truth = scores["tables"]["model"], scores["tables"]["truth"]
    rows = "\n".join(row(task, model[task], truth[task], has_goals) for task in (*TASKS, "mean"))
    facts = {name: scores[name] for name in ("drawn", "command", "date", "machine", "name")}
    heads = {"goal_head": " goal |" if has_goals else "", "goal_line": " --- |" if has_goals else ""}
    return TABLE.format(rows=rows, short_hash=scores["hash"][:10], **facts, **heads)


def row(task: str, model: dict[str, Any], truth: dict[str, Any], has_goals: bool) -> str:
    low, high = model["interval"]
    goal = GOALS.get(task)
    return (
        f"| {task} | {model['passed']} | {model['total']} | {model['fraction']:.3f} "
        f"| {low:.3f} to {high:.3f} | {truth['fraction']:.3f} |"
        + (f" {'' if goal is None else f'{goal:.2f}'} |" if has_goals else "")
    )


def side_by_side(run: list[dict[str, Any]]) -> str:
    """Return a table with a line a measurement of one run."""
    reference = next((one for one in run if one["name"] == HOLDER), run[0])
    lines = []
    for one in run:
        mean, spent = one["tables"]["model"]["mean"], one["denoiser_seconds_a_picture"]
        low, high = mean["interval"]
        lines.append(
            f"| {one['name']} | {one['steps']} | {one['guidance']:g} | {mean['fraction']:.3f} "
            f"| {low:.3f} to {high:.3f} | {one['seconds_a_picture']:.3f} | {spent:.3f} "
            f"| {reference['denoiser_seconds_a_picture'] / spent:.1f}x |"
        )
    return SIDE_BY_SIDE.format(batch=run[0]["batch"], reference=reference["name"], rows="\n".join(lines))


def sizes(folder: Path) -> str:
    """Return a line a component: its kind, its number of parameters, and the model that it is shared with."""
    from safetensors import safe_open

    lines = []
    for part, name in (("transformer", "denoiser"), ("text_encoder", "text encoder"), ("vae", "autoencoder")):
        inside = component_folder(folder, part)
        (file,) = inside.glob("*.safetensors")
        with safe_open(file, "pt") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
        count = sum(math.prod(shape) for shape in shapes)
        shared = "" if inside.parent == folder else f", shared with {inside.parent.name}"
        lines.append(f"- {name}: {count:,} parameters, {file.stat().st_size / 1e6:.1f} MB{shared}")
    return "\n".join(lines)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def shipped_sizes(root: Path = PACKAGED_WEIGHTS) -> str:
    """Return a line a model with the megabytes of its folder, and a line with the total."""
    here = [root / name for name in MODELS if (root / name).is_dir()]
    lines = [f"{folder.name}: {size_of(folder) / 1e6:.1f} MB" for folder in here]
    return "\n".join([*lines, f"together: {size_of(root) / 1e6:.1f} of {TOTAL_LIMIT_BYTES / 1e6:.0f} MB"])


if __name__ == "__main__":
    main()
