"""The six evaluation tasks of the nano world, after GenEval, and its stream of training examples.

Test prompts ask for held-out combinations (two objects; an object and a number; an object and a background)
and begin with held-out phrases. A single object has no combination to hold out: in the task "single" only the
phrase is new.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from lens.errors import SettingError
from lens.nano.world.caption_grammar import CaptionContent, brief_caption, dense_caption
from lens.nano.world.colours import FIRST_COLOURS
from lens.nano.world.languages.registry import LANGUAGES, language
from lens.nano.world.objects import FIRST_CLASSES
from lens.nano.world.scenes import (
    RELATIONS,
    ObjectGroup,
    Scene,
    SceneSpec,
    arrange_scene,
    held_out_combinations,
    random_scene,
)

TASKS = ("single", "two", "counting", "colour", "position", "combined")

PROMPT_STYLES = ("brief", "dense", *LANGUAGES)
"""Styles of the prompts of a task: the two of English, and other languages."""

DENSE_SHARE = 0.3
"""Share of training captions that are dense."""


@dataclass(frozen=True)
class WorldConfig:
    """Objects, backgrounds and captions of the six tasks; smaller worlds are for experiments."""

    class_names: tuple[str, ...] = FIRST_CLASSES
    dense_share: float = DENSE_SHARE
    colours: tuple[str, ...] = FIRST_COLOURS
    language: str = ""
    """Code of another language, in which `language_share` of the captions are."""
    language_share: float = 0.0

    @classmethod
    def of(cls, world: str, dense_share: float, language: str = "", language_share: float = 0.0) -> Self:
        """Return a world of WORLDS with other captions.

        Raises: SettingError for an unknown world or language.
        """
        if world not in WORLDS:
            raise SettingError("world", world, f"one of {', '.join(WORLDS)}")
        if language_share and language not in LANGUAGES:
            raise SettingError("language", language, f"one of {', '.join(LANGUAGES)}")
        share = {"language": language, "language_share": language_share} if language_share else {}
        return replace(WORLDS[world], dense_share=dense_share, **share)  # type: ignore[return-value]

    def example(self, seed: int, index: int, height_px: int, width_px: int) -> tuple[Scene, str]:
        """Return one scene and its caption, which depend on the arguments only."""
        return training_example(seed, index, height_px, width_px, self)


FULL_WORLD = WorldConfig()
MICRO_WORLD = WorldConfig(
    ("penguin", "fish", "sunflower", "croissant", "snail", "frog", "chick", "pear"),
    colours=("white", "yellow", "green", "blue"),
)
"""A world that a small denoiser learns in minutes at 64 pixels: objects that stay themselves when they are
small, and of which many combinations are held out."""
WORLDS = {"tasks": FULL_WORLD, "micro": MICRO_WORLD}


class TaskPrompt(NamedTuple):
    """A prompt, and what its image must show."""

    prompt: str
    spec: SceneSpec


def task_prompts(
    task: str,
    num_prompts: int,
    seed: int = 0,
    world: WorldConfig = FULL_WORLD,
    style: str = "brief",
) -> list[TaskPrompt]:
    """Return distinct prompts of a task, fixed by the seed; a longer list begins with the shorter one.

    A style is brief, dense, or the code of a language. Dense prompts also state positions, sizes and
    backgrounds that are not scored.

    Raises: SettingError for an unknown task or style, or a world too small for so many prompts.
    """
    if task not in TASKS:
        raise SettingError("task", task, f"one of {', '.join(TASKS)}")
    if style not in PROMPT_STYLES:
        raise SettingError("style", style, f"one of {', '.join(PROMPT_STYLES)}")
    rng = np.random.default_rng(
        [seed, int.from_bytes(hashlib.blake2b(task.encode(), digest_size=4).digest(), "big")]
    )
    prompts: dict[str, TaskPrompt] = {}
    contents = _held_out_contents(task, rng, world)
    while len(prompts) < num_prompts:
        candidate = next(contents, None)
        if candidate is None:
            needs = f"more than {len(world.class_names)} objects, or fewer prompts: too few combinations of "
            raise SettingError("world", ", ".join(world.class_names), f"{needs}the task {task} are held out")
        groups, relation, background = candidate
        spec = SceneSpec(groups, background, ((0, relation, 1),) if relation else ())
        scene = arrange_scene(rng, groups, background or "white", relation, 128, 128)
        content = CaptionContent(background is not None, relation is not None, detail=False)
        if style == "brief":
            prompt = brief_caption(scene, rng, "test", content)
        elif style == "dense":
            prompt = dense_caption(scene, rng, "test")
        else:
            prompt = language(style).caption(spec, rng).text
        prompts.setdefault(prompt, TaskPrompt(prompt, spec))
    return list(prompts.values())


def task_scene(task_prompt: TaskPrompt, rng: np.random.Generator, height_px: int, width_px: int) -> Scene:
    """Return a scene that a prompt describes."""
    spec = task_prompt.spec
    background = spec.background or str(rng.choice(FIRST_COLOURS))
    relation = spec.relations[0][1] if spec.relations else None
    return arrange_scene(rng, spec.groups, background, relation, height_px, width_px)


def training_example(
    seed: int, index: int, height_px: int, width_px: int, world: WorldConfig = FULL_WORLD
) -> tuple[Scene, str]:
    """Return one scene and its caption, which depend on the arguments only."""
    rng = np.random.default_rng([seed, index])
    scene = random_scene(
        rng, height_px, width_px, class_names=world.class_names, colours=world.colours
    )
    if world.language_share and rng.random() < world.language_share:
        return scene, language(world.language).caption(_stated(scene, rng), rng).text
    caption = dense_caption if rng.random() < world.dense_share else brief_caption
    return scene, caption(scene, rng)


def _stated(scene: Scene, rng: np.random.Generator) -> SceneSpec:
    """Return what a caption in another language states: as often as in brief captions, not the background."""
    return scene.spec if rng.random() < 0.8 else replace(scene.spec, background=None)


def _held_out_contents(
    task: str, rng: np.random.Generator, world: WorldConfig
) -> Iterator[tuple[tuple[ObjectGroup, ...], str | None, str | None]]:
    """Yield groups, relation and background of held-out prompts."""
    names = world.class_names
    order = rng.permutation(len(names))
    for turn in range(100_000):
        num_things = {"two": 2, "position": 2, "combined": 2 + turn % 2}.get(task, 1)
        others = rng.choice(len(names), num_things, replace=False)
        # Single objects alternate, so that a short list does not ask for one twice.
        things = [names[order[turn % len(order)]]] if num_things == 1 else [names[index] for index in others]
        counts = [1] * num_things
        if task == "counting":
            counts = [int(rng.integers(2, 6))]
        if task == "combined" and num_things == 2:
            counts = list(((2, 1), (1, 2), (2, 2), (3, 1), (1, 3))[int(rng.integers(5))])
        has_relation = num_things == 2 and task != "two"
        relation = RELATIONS[int(rng.integers(4))] if has_relation else None
        background = str(rng.choice(world.colours)) if task in ("colour", "combined") else None
        groups = tuple(ObjectGroup(*pair) for pair in zip(things, counts, strict=True))
        if task == "single" or held_out_combinations(groups, background):
            yield groups, relation, background
