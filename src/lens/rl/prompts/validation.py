"""Validation of generated prompts: requirements, near-duplicates and overlap with benchmarks.

Similarity is the Jaccard index of words. Knows nothing of models or files of prompt sets.
"""

import re
from array import array
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens.nano.tasks import TASKS, task_prompts
from lens.rl.prompts.taxonomy import PromptSubject
from lens.text_files import read_text

WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "into", "is", "it", "its", "of",
    "on", "onto", "or", "over", "that", "the", "their", "there", "this", "to", "under", "up", "was", "which",
    "while", "with",
))  # fmt: skip
COUNT_WORDS = frozenset((
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "dozen", "hundred", "single", "pair", "couple", "twin", "both", "trio",
))  # fmt: skip
NUM_NANO_TESTS = 100
"""Test prompts of each nano task that a set is compared with."""
MIN_QUOTE_WORDS = 5
"""Least number of words of a benchmark prompt that counts as an overlap inside a longer prompt."""


class GeneratedPrompt(NamedTuple):
    """A prompt as the model wrote it."""

    prompt: str
    keypoints: tuple[str, ...]
    text: str | None


class PromptError(NamedTuple):
    """An error of a prompt: one word for counting, and a message for the model."""

    reason: str
    message: str


def validate_prompt(
    generated: GeneratedPrompt, subject: PromptSubject, min_words: int, max_words: int
) -> list[PromptError]:
    """Return all errors of a prompt, apart from its similarity to others."""
    errors = []
    num_words = len(generated.prompt.split())
    if not min_words <= num_words <= max_words:
        reason = "too_short" if num_words < min_words else "too_long"
        message = f"the prompt has {num_words} words, and must have from {min_words} to {max_words}"
        errors.append(PromptError(reason, message))
    plain = normalize_words(generated.prompt)
    missing = [point for point in generated.keypoints if f" {normalize_words(point)} " not in f" {plain} "]
    if missing:
        message = f"these keypoints do not stand word for word in the prompt: {', '.join(missing)}"
        errors.append(PromptError("keypoint_missing", message))
    visible = [dimension for dimension in subject.dimensions if dimension != "text"]
    if len(generated.keypoints) < len(visible):
        message = f"there are fewer keypoints than dimensions ({', '.join(visible)})"
        errors.append(PromptError("too_few_keypoints", message))
    if not mentions(generated.prompt, subject.item.name):
        errors.append(
            PromptError("item_missing", f"the prompt does not name the subject, {subject.item.name}")
        )
    if "count" in subject.dimensions and not any(map(_is_number, plain.split())):
        errors.append(PromptError("count_missing", "the prompt states no number, though count was asked for"))
    return errors + _text_errors(generated, "text" in subject.dimensions)


def mentions(prompt: str, item: str) -> bool:
    """Return whether a prompt names an item: its words in any form; of three or more, all but one."""
    stems = {_stem(word) for word in normalize_words(prompt).split()}
    item_stems = {_stem(word) for word in normalize_words(item).split() if word not in STOP_WORDS}
    return len(item_stems - stems) <= (len(item_stems) >= 3)


def normalize_words(text: str) -> str:
    """Return the words of a text in lower case, separated by spaces."""
    return " ".join(WORD.findall(text.lower()))


def content_words(prompt: str) -> frozenset[str]:
    """Return the words of a prompt without stop words."""
    return frozenset(normalize_words(prompt).split()) - STOP_WORDS


class NearDuplicateIndex:
    """Index that finds the most similar of many prompts."""

    def __init__(self, prompts: Iterable[str] = ()):
        self.prompts: list[str] = []
        self._token_counts = array("l")
        self._postings: dict[str, array] = {}
        for prompt in prompts:
            self.add(prompt)

    def add(self, prompt: str) -> None:
        tokens = content_words(prompt)
        for token in tokens:
            self._postings.setdefault(token, array("l")).append(len(self.prompts))
        self._token_counts.append(len(tokens))
        self.prompts.append(prompt)

    def nearest(self, prompt: str) -> tuple[float, str]:
        """Return the largest similarity, from 0 to 1, and its prompt."""
        tokens = content_words(prompt)
        places = [np.array(self._postings[token]) for token in tokens if token in self._postings]
        if not places:
            return 0.0, ""
        shared = np.bincount(np.concatenate(places), minlength=len(self.prompts))  # (N,)
        ratio = shared / (np.array(self._token_counts) + len(tokens) - shared)            # (N,)
        best = int(ratio.argmax())
        return float(ratio[best]), self.prompts[best]


class Decontamination:
    """Prompts of benchmarks, which no prompt of a set should resemble."""

    def __init__(self, prompts: Collection[str]):
        self._index = NearDuplicateIndex(prompts)
        self._by_words = {normalize_words(prompt): prompt for prompt in prompts}
        self._quotable = [words for words in self._by_words if len(words.split()) >= MIN_QUOTE_WORDS]

    @classmethod
    def from_files(cls, names: Iterable[str]) -> "Decontamination":
        """Read files with one prompt a line; `nano` stands for the test prompts of the nano world."""
        prompts: list[str] = []
        for name in names:
            if name == "nano":
                prompts += [one.prompt for task in TASKS for one in task_prompts(task, NUM_NANO_TESTS)]
            else:
                text = read_text(Path(name), "benchmarks", "text files with one prompt a line")
                prompts += [line.strip() for line in text.splitlines() if line.strip()]
        return cls(prompts)

    def __len__(self) -> int:
        return len(self._index.prompts)

    def exact_match(self, prompt: str) -> str | None:
        """Return the prompt of the same words in the same order."""
        return self._by_words.get(normalize_words(prompt))

    def find_overlap(self, prompt: str, max_similarity: float) -> str | None:
        """Return the benchmark prompt that a prompt is too similar to or contains."""
        similarity, nearest = self._index.nearest(prompt)
        if similarity >= max_similarity:
            return nearest
        plain = f" {normalize_words(prompt)} "
        return next((self._by_words[words] for words in self._quotable if f" {words} " in plain), None)


def _text_errors(generated: GeneratedPrompt, is_required: bool) -> list[PromptError]:
    if not is_required:
        return []
    if not generated.text:
        return [PromptError("text_missing", '"text" does not say what is written in the picture')]
    if generated.text not in generated.prompt:
        message = f"the prompt does not hold the writing {generated.text!r} letter by letter, in quotes"
        return [PromptError("text_missing", message)]
    return []


def _is_number(word: str) -> bool:
    return word in COUNT_WORDS or word.isdigit() or any(part in COUNT_WORDS for part in word.split("-"))


def _stem(word: str) -> str:
    """Return a word without endings of plurals and verbs; the stem is only for comparison."""
    word = word.removesuffix("'s").removesuffix("s'")
    for ending, put in (("ies", "y"), ("ves", "f"), ("ing", ""), ("es", ""), ("ed", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + put
            break
    return word.rstrip("e") if len(word) > 3 else word
