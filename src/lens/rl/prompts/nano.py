"""Prompts of the nano world with exact rubrics, generated from scenes by the caption grammar.

Held-out combinations and phrases of tests never occur. Knows nothing of models, endpoints or files.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lens.errors import SettingError
from lens.nano.captions import CaptionMix, nano_caption
from lens.nano.tasks import FULL_WORLD, TASKS, WorldConfig
from lens.nano.world.caption_grammar import CaptionContent, brief_caption, dense_caption
from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.phrases import NUMERALS
from lens.nano.world.scene_spec import (
    MAX_TEXT_LENGTH,
    RELATIONS,
    SIGN_CHARACTERS,
    ObjectGroup,
    SceneSpec,
    Size,
)
from lens.nano.world.scenes import arrange_scene, held_out_combinations
from lens.rl.prompts.dataset import GLOBAL_CRITERION, GLOBAL_RUBRIC, RLPrompt
from lens.rl.prompts.settings import KINDS, OWN_WORDS, check_choices

NOTHING_ELSE = "nothing_else"
"""Name of the criterion that the image shows no other object."""
TEXT = "text"
"""Name of the criterion of the text on a sign."""
BACKGROUND = "background"
"""Name of the criterion of the background colour, where the prompt states it."""

TASK_DIMENSIONS = {
    "single": (), "two": (), "counting": ("count",), "colour": ("colour",), "position": ("spatial",),
    "combined": ("count", "spatial", "colour"),
}  # fmt: skip
_COMBINED_COUNTS = ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3))


def nano_prompts(
    num_prompts: int, seed: int = 0, kinds: Sequence[str] = TASKS, dense_share: float = 0.2,
    new_share: float = 0.7, world: WorldConfig = FULL_WORLD,
) -> list[RLPrompt]:  # fmt: skip
    """Return distinct prompts with rubrics; the kinds alternate. A longer list begins with the shorter one.

    The prompts of a kind do not depend on the other kinds. Prompts may state facts without a criterion: dense
    ones places and sizes, brief ones of two objects that they are beside each other. `new_share` of the brief
    ones have phrases that neither training nor tests use.

    Raises: SettingError for an unknown kind, a repeated kind, or none.
    """
    check_choices("kinds", kinds, KINDS)
    sources = [
        _own_words(seed, dense_share)
        if kind == OWN_WORDS
        else _generate_prompts(kind, seed, dense_share, new_share, world)
        for kind in kinds
    ]
    prompts: dict[str, RLPrompt] = {}
    while len(prompts) < num_prompts:
        source = sources[len(prompts) % len(sources)]
        prompt = next(one for one in source if one.prompt not in prompts)
        prompts[prompt.prompt] = prompt
    return list(prompts.values())


def scene_spec_of(prompt: RLPrompt) -> SceneSpec:
    """Return what an image of a nano prompt must show.

    Raises: SettingError for a prompt of another world, or with invalid fields.
    """
    fields = prompt.expected
    if fields is None:
        needs = "what an image must show, as in prompts of the nano world"
        raise SettingError("expected", f"None (prompt {prompt.prompt!r})", needs)
    try:
        groups = tuple(_group_of(*values) for values in fields["groups"])
        relations = tuple((int(a), str(relation), int(b)) for a, relation, b in fields["relations"])
        background = fields["background"]
        text = fields.get("text")
        is_known = bool(groups) or text is not None
        is_known &= all(group.class_name in OBJECT_CLASSES and group.count != 0 for group in groups)
        is_known &= all((group.count or 1) > 0 for group in groups)
        is_known &= all(group.colour in (None, *OBJECT_COLOURS) for group in groups)
        is_known &= all(group.size in (None, "small", "large") for group in groups)
        is_known &= text is None or 1 <= len(text) <= MAX_TEXT_LENGTH
        is_known &= set(text or "") <= set(SIGN_CHARACTERS)
        is_known &= background is None or background in COLOURS
        is_known &= all(relation in RELATIONS for _, relation, _ in relations)
        is_known &= all(0 <= end < len(groups) for a, _, b in relations for end in (a, b))
    except (LookupError, TypeError, ValueError):
        is_known = False
    if not is_known:
        raise SettingError("expected", fields, "groups, background, relations and text of the nano world")
    return SceneSpec(groups, background, relations, text)


def _group_of(
    thing: str, count: int | None, colour: str | None = None, size: Size | None = None
) -> ObjectGroup:
    return ObjectGroup(str(thing), None if count is None else int(count), colour, size)


def scene_spec_to_dict(spec: SceneSpec) -> dict[str, Any]:
    """Return the JSON values that `scene_spec_of` reads."""
    groups = []
    for thing, count, colour, size, _ in spec.groups:
        groups.append([thing, count, colour, size] if colour or size else [thing, count])
    fields = {
        "groups": groups,
        "background": spec.background,
        "relations": [list(relation) for relation in spec.relations],
    }
    return fields if spec.text is None else fields | {"text": spec.text}


def nano_rubric(spec: SceneSpec) -> dict[str, str]:
    """Return one criterion for each fact, and two global ones.

    `count_<i>`, with the colour, and `size_<i>` are numbered as in `spec.groups`, `relation_<i>` as in
    `spec.relations`; `background` and `text` have no number.
    """
    rubric = {}
    for number, group in enumerate(spec.groups):
        amount = "at least " if group.count is None else "exactly "
        rubric[f"count_{number}"] = f"There {_verb(group)} {amount}{_count_phrase(group)}."
    for number, group in enumerate(spec.groups):
        if group.size:
            rubric[f"size_{number}"] = f"{_definite_phrase(group).capitalize()} {_verb(group)} {group.size}."
    if spec.text is not None:
        rubric[TEXT] = f'There is one sign, and it says "{spec.text}".'
    if spec.background is not None:
        rubric[BACKGROUND] = f"The background is {spec.background}."
    for number, (first, relation, second) in enumerate(spec.relations):
        subject, other = (_definite_phrase(spec.groups[end]) for end in (first, second))
        way = f"to the {relation}" if relation.endswith(" of") else relation
        rubric[f"relation_{number}"] = f"{subject.capitalize()} {_verb(spec.groups[first])} {way} {other}."
    things = [OBJECT_CLASSES[thing].plural for thing, *_ in spec.groups]
    names = " and ".join(dict.fromkeys(things if spec.text is None else [*things, "the sign"]))
    rubric[NOTHING_ELSE] = f"There is nothing on the plain background but {names}."
    return rubric | {GLOBAL_CRITERION: GLOBAL_RUBRIC}


def _generate_prompts(
    kind: str, seed: int, dense_share: float, new_share: float, world: WorldConfig
) -> Iterator[RLPrompt]:
    """Yield prompts of a kind, endlessly."""
    digest = hashlib.blake2b(f"rl {kind}".encode(), digest_size=4).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    for groups, relation, background in _sample_contents(kind, rng, world):
        is_dense, is_new = (bool(rng.random() < share) for share in (dense_share, new_share))
        scene = arrange_scene(rng, groups, background, relation, 128, 128)
        if is_dense:
            text = dense_caption(scene, rng)
        else:
            content = CaptionContent(kind in ("colour", "combined"), relation is not None, detail=False)
            text = brief_caption(scene, rng, "tune" if is_new else "train", content)
        # Dense captions always state the background.
        states_background = is_dense or kind in ("colour", "combined")
        relations = ((0, relation, 1),) if relation else ()
        spec = SceneSpec(groups, background if states_background else None, relations)
        yield RLPrompt(
            prompt=text,
            category=kind,
            item=" and ".join(thing for thing, *_ in groups),
            dimensions=TASK_DIMENSIONS[kind],
            rubric=nano_rubric(spec),
            expected=scene_spec_to_dict(spec),
        )


def _own_words(seed: int, dense_share: float) -> Iterator[RLPrompt]:
    """Yield prompts of the whole world that name a thing or a sign, endlessly."""
    mix = CaptionMix(dense=dense_share, tasks=0.0)
    for number in itertools.count():
        caption = nano_caption(seed, number, mix)
        spec = caption.spec
        if not spec.groups and spec.text is None:
            continue
        has = {
            "count": any((group.count or 1) > 1 for group in spec.groups),
            "colour": spec.background is not None or any(group.colour for group in spec.groups),
            "spatial": bool(spec.relations),
            TEXT: spec.text is not None,
        }
        yield RLPrompt(
            prompt=caption.text,
            category=OWN_WORDS,
            item=" and ".join(group.class_name for group in spec.groups) or "sign",
            dimensions=tuple(dimension for dimension, is_stated in has.items() if is_stated),
            rubric=nano_rubric(spec),
            expected=scene_spec_to_dict(spec),
        )


def _sample_contents(
    kind: str, rng: np.random.Generator, world: WorldConfig
) -> Iterator[tuple[tuple[ObjectGroup, ...], str | None, str]]:
    """Yield groups, relation and background of combinations that are not held out."""
    names, colours = world.class_names, world.colours
    order: list[int] = []
    num_yielded = 0
    while True:
        num_things = {"two": 2, "position": 2, "combined": 2 + num_yielded % 2}.get(kind, 1)
        if num_things == 1:
            # Single objects alternate, so that a short list does not ask for one twice.
            order = order or [int(index) for index in rng.permutation(len(names))]
            things = [names[order.pop()]]
        else:
            things = [names[index] for index in rng.choice(len(names), num_things, replace=False)]
        counts = [1] * num_things
        if kind == "counting":
            counts = [int(rng.integers(2, 6))]
        if kind == "combined" and num_things == 2:
            counts = list(_COMBINED_COUNTS[int(rng.integers(len(_COMBINED_COUNTS)))])
        has_relation = num_things == 2 and kind != "two"
        relation = RELATIONS[int(rng.integers(len(RELATIONS)))] if has_relation else None
        background = colours[int(rng.integers(len(colours)))]
        groups = tuple(ObjectGroup(*pair) for pair in zip(things, counts, strict=True))
        if not held_out_combinations(groups, background):
            yield groups, relation, background
            num_yielded += 1


def _count_phrase(group: ObjectGroup) -> str:
    count = group.count or 1
    numeral = NUMERALS[count] if count < len(NUMERALS) else str(count)
    return " ".join(filter(None, (numeral, group.colour, _noun(group))))


def _definite_phrase(group: ObjectGroup) -> str:
    return " ".join(filter(None, ("the", group.colour, _noun(group))))


def _noun(group: ObjectGroup) -> str:
    return group.class_name if group.count in (None, 1) else OBJECT_CLASSES[group.class_name].plural


def _verb(group: ObjectGroup) -> str:
    return "is" if group.count in (None, 1) else "are"
