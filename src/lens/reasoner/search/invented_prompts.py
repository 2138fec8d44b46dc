"""Invented requests for a search: new ones from the grammar of GenEval, and texts that no benchmark has.

Facts of a prompt hold a rubric, a sentence for each criterion, and the text where it has one. Prompts of
one object cannot be drawn anew: GenEval has all 80 of them. Kinds alternate.
"""

from itertools import cycle
from pathlib import Path

import numpy as np

from lens.benchmarks.geneval import CLASSES, COLOURS
from lens.errors import SettingError
from lens.reasoner.search.prompts import SearchPrompt, normalized, read_excluded

NUM_OFFICIAL = 553
"""Prompts of GenEval."""
MAX_TRIES = 500
"""Draws without a new prompt after which a kind has no more; counting has the fewest, about 150."""
KINDS = ("two_object", "counting", "colors", "position", "color_attr")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLACES = (
    "a wooden sign in front of a bakery", "the cover of an old book", "a chalkboard in a classroom",
    "a neon sign above a bar", "a banner across a village street", "the side of a delivery van",
    "a poster on a brick wall", "a label on a glass jar", "a T-shirt on a clothes line",
    "a ticket on a table", "a flag on a small boat", "a cake with icing",
)  # fmt: skip
WORDS = (
    "amber", "market", "seven", "quiet", "river", "open", "daily", "north", "winter", "garden", "night",
    "paper", "copper", "fresh", "harbor", "little", "moon", "orchard", "silver", "station", "thunder",
    "velvet", "window", "yellow", "bridge", "candle", "forest", "island", "meadow", "rocket",
)  # fmt: skip


def geneval_prompts(seed: int, official: Path) -> list[SearchPrompt]:
    """Return new prompts of GenEval's grammar, without the official ones of a file.

    A prompt that asks for the same in another order counts as official too.
    Raises: SettingError for a file without all official prompts.
    """
    taken = {normalized(prompt) for prompt in read_excluded(official, "prompts.official")}
    if len(taken) != NUM_OFFICIAL:
        fix = "It is generation_prompts.txt or evaluation_metadata.jsonl of GenEval."
        needs = f"a file of the {NUM_OFFICIAL} prompts of GenEval; it has {len(taken)}"
        raise SettingError("prompts.official", str(official), needs, fix)
    rng = np.random.default_rng([seed, NUM_OFFICIAL])
    found: list[SearchPrompt] = []
    for kind in cycle(KINDS):
        for _ in range(MAX_TRIES):
            prompt, other_order = _geneval_prompt(kind, rng)
            wordings = {normalized(prompt.prompt), normalized(other_order)}
            if not wordings & taken:
                taken |= wordings
                found.append(prompt)
                break
        else:
            return found
    raise AssertionError("unreachable")


def text_prompts(seed: int) -> list[SearchPrompt]:
    """Return prompts with a text of one to five words in quotes; kinds are the numbers of words."""
    rng = np.random.default_rng([seed, len(WORDS)])
    found: dict[str, SearchPrompt] = {}
    for turn in range(1000):
        count = 1 + turn % 5
        words = [WORDS[index] for index in rng.choice(len(WORDS), count, replace=False)]
        text = " ".join(words).upper() if rng.random() < 0.3 else " ".join(words).capitalize()
        if rng.random() < 0.3:
            text += f" {rng.integers(10, 2000)}"
        place = PLACES[int(rng.integers(len(PLACES)))]
        prompt = f'{place} that says "{text}"'
        rubric = {"text": f'The text reads "{text}", letter by letter, and there is no other text.'}
        found[prompt] = SearchPrompt(prompt, f"{count} words", {"rubric": rubric, "text": text})
    return list(found.values())


def _geneval_prompt(kind: str, rng: np.random.Generator) -> tuple[SearchPrompt, str]:
    """Return a prompt, and another one that asks for the same."""
    # No person has a colour.
    names = list(CLASSES[1:] if kind in ("colors", "color_attr") else CLASSES)
    if kind == "counting":
        names = [name for name in names if name not in ("skis", "scissors")]  # the grammar cannot count them
    first, second = (names[index] for index in rng.choice(len(names), 2, replace=False))
    own, other = (COLOURS[index] for index in rng.choice(len(COLOURS), 2, replace=False))
    relation = [*OPPOSITE][int(rng.integers(len(OPPOSITE)))]
    number = int(rng.integers(2, 5))
    pair = {"object_0": f"There is {_a(first)}.", "object_1": f"There is {_a(second)}."}
    if kind == "counting":
        phrases = [f"{NUMBERS[number]} {first}{'es' if first.endswith('s') else 's'}"] * 2
        rubric = {"count": f"The picture shows exactly {number} objects of the kind {first!r}."}
    elif kind == "colors":
        phrases = [_a(f"{own} {first}")] * 2
        rubric = {"object_0": pair["object_0"], "colour_0": f"The {first} is {own}."}
    elif kind == "position":
        phrases = [f"{_a(first)} {relation} {_a(second)}", f"{_a(second)} {OPPOSITE[relation]} {_a(first)}"]
        rubric = pair | {"position": f"The {first} is {relation} the {second}."}
    elif kind == "color_attr":
        coloured = [_a(f"{own} {first}"), _a(f"{other} {second}")]
        phrases = [" and ".join(coloured), " and ".join(coloured[::-1])]
        rubric = pair | {"colour_0": f"The {first} is {own}.", "colour_1": f"The {second} is {other}."}
    else:
        phrases = [f"{_a(first)} and {_a(second)}", f"{_a(second)} and {_a(first)}"]
        rubric = pair
    prompt, other_order = (f"a photo of {phrase}" for phrase in phrases)
    return SearchPrompt(prompt, kind, {"rubric": rubric}), other_order


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
