"""Whether a prompt is what was asked for, and whether it is too like another one or one of a benchmark.

Similarity is that of token sets: shared words over all words. Knows nothing of models or files of sets.
"""

import re
from array import array
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens.errors import SettingError
from lens.nano.tasks import TASKS, task_prompts
from lens.rl.prompts.taxonomy import Subject

WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "into", "is", "it", "its", "of",
    "on", "onto", "or", "over", "that", "the", "their", "there", "this", "to", "under", "up", "was", "which",
    "while", "with",
))  # fmt: skip
NUMBERS = frozenset((
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "dozen", "hundred", "single", "pair", "couple", "twin", "both", "trio",
))  # fmt: skip
NANO_TESTS = 100
"""Test prompts of each of the nano world's tasks that a set is compared with."""
SHORTEST_QUOTE = 5
"""Words that a benchmark's prompt has at least, to count where it stands inside a longer one."""


class Written(NamedTuple):
    """A prompt as a model wrote it."""

    prompt: str
    keypoints: tuple[str, ...]
    text: str | None


class Fault(NamedTuple):
    """What is wrong with a prompt: one word for counting, and words for whoever wrote it."""

    reason: str
    told: str


def faults_of(written: Written, subject: Subject, min_words: int, max_words: int) -> list[Fault]:
    """Return everything that is wrong with a prompt by itself."""
    faults = []
    num_words = len(written.prompt.split())
    if not min_words <= num_words <= max_words:
        reason = "too_short" if num_words < min_words else "too_long"
        told = f"the prompt has {num_words} words, and must have from {min_words} to {max_words}"
        faults.append(Fault(reason, told))
    plain = normalised(written.prompt)
    missing = [point for point in written.keypoints if f" {normalised(point)} " not in f" {plain} "]
    if missing:
        told = f"these keypoints do not stand word for word in the prompt: {', '.join(missing)}"
        faults.append(Fault("keypoint_missing", told))
    visible = [dimension for dimension in subject.dimensions if dimension != "text"]
    if len(written.keypoints) < len(visible):
        told = f"there are fewer keypoints than dimensions ({', '.join(visible)})"
        faults.append(Fault("too_few_keypoints", told))
    if not mentions(written.prompt, subject.item.name):
        faults.append(Fault("item_missing", f"the prompt does not name the subject, {subject.item.name}"))
    if "count" in subject.dimensions and not any(map(_is_number, plain.split())):
        faults.append(Fault("count_missing", "the prompt states no number, though count was asked for"))
    return faults + _faults_of_text(written, "text" in subject.dimensions)


def mentions(prompt: str, item: str) -> bool:
    """Return whether a prompt names a thing: its words in any form; of three or more, all but one."""
    stems = {_stem(word) for word in normalised(prompt).split()}
    wanted = {_stem(word) for word in normalised(item).split() if word not in STOP_WORDS}
    return len(wanted - stems) <= (len(wanted) >= 3)


def normalised(text: str) -> str:
    """Return the words of a text in lower case, a space between them."""
    return " ".join(WORD.findall(text.lower()))


def tokens_of(prompt: str) -> frozenset[str]:
    """Return the words of a prompt that say what it is about."""
    return frozenset(normalised(prompt).split()) - STOP_WORDS


class Similar:
    """Finds the most similar of many prompts; to add one more costs about as much as to look once."""

    def __init__(self, prompts: Iterable[str] = ()):
        self.prompts: list[str] = []
        self._sizes = array("l")
        self._having: dict[str, array] = {}
        for prompt in prompts:
            self.add(prompt)

    def add(self, prompt: str) -> None:
        tokens = tokens_of(prompt)
        for token in tokens:
            self._having.setdefault(token, array("l")).append(len(self.prompts))
        self._sizes.append(len(tokens))
        self.prompts.append(prompt)

    def nearest(self, prompt: str) -> tuple[float, str]:
        """Return the largest similarity, from 0 to 1, and the prompt that has it."""
        tokens = tokens_of(prompt)
        places = [np.array(self._having[token]) for token in tokens if token in self._having]
        if not places:
            return 0.0, ""
        shared = np.bincount(np.concatenate(places), minlength=len(self.prompts))  # (N,)
        ratio = shared / (np.array(self._sizes) + len(tokens) - shared)            # (N,)
        best = int(ratio.argmax())
        return float(ratio[best]), self.prompts[best]


class Benchmarks:
    """Prompts that models are measured by, which none to tune on should be like."""

    def __init__(self, prompts: Collection[str]):
        self._similar = Similar(prompts)
        self._same = {normalised(prompt): prompt for prompt in prompts}
        self._quotable = [words for words in self._same if len(words.split()) >= SHORTEST_QUOTE]

    @classmethod
    def of(cls, names: Iterable[str]) -> "Benchmarks":
        """Read files with a prompt a line; `nano` stands for the nano world's own test prompts."""
        prompts: list[str] = []
        for name in names:
            if name == "nano":
                prompts += [one.prompt for task in TASKS for one in task_prompts(task, NANO_TESTS)]
            else:
                try:
                    lines = Path(name).read_text().splitlines()
                except UnicodeDecodeError as error:
                    raise SettingError("benchmarks", name, "files of text, a prompt a line") from error
                prompts += [line.strip() for line in lines if line.strip()]
        return cls(prompts)

    def __len__(self) -> int:
        return len(self._similar.prompts)

    def same(self, prompt: str) -> str | None:
        """Return the prompt of the same words in the same order."""
        return self._same.get(normalised(prompt))

    def overlap(self, prompt: str, max_similarity: float) -> str | None:
        """Return the prompt that one is too similar to, or whose words stand in it."""
        similarity, nearest = self._similar.nearest(prompt)
        if similarity >= max_similarity:
            return nearest
        plain = f" {normalised(prompt)} "
        return next((self._same[words] for words in self._quotable if f" {words} " in plain), None)


def _faults_of_text(written: Written, is_asked_for: bool) -> list[Fault]:
    if not is_asked_for:
        return []
    if not written.text:
        return [Fault("text_missing", '"text" does not say what is written in the picture')]
    if written.text not in written.prompt:
        told = f"the prompt does not hold the writing {written.text!r} letter by letter, in quotes"
        return [Fault("text_missing", told)]
    return []


def _is_number(word: str) -> bool:
    return word in NUMBERS or word.isdigit() or any(part in NUMBERS for part in word.split("-"))


def _stem(word: str) -> str:
    """Return a word without the endings of plurals and verbs; only to compare, so it may be no word."""
    word = word.removesuffix("'s").removesuffix("s'")
    for ending, put in (("ies", "y"), ("ves", "f"), ("ing", ""), ("es", ""), ("ed", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + put
            break
    return word.rstrip("e") if len(word) > 3 else word
