"""Prompts of a search: three splits by prompt, none of which holds a prompt of a benchmark."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lens.errors import SettingError
from lens.reasoner.search.settings import SplitSettings
from lens.text_files import TextError, parse_json, read_text

_NO_FACTS: Mapping[str, Any] = MappingProxyType({})


class SearchPrompt(NamedTuple):
    """A request, and what a scorer has to know about it."""

    prompt: str
    kind: str = ""
    """Kind of prompt; the last comparison draws its prompts again within each kind."""
    facts: Mapping[str, Any] = _NO_FACTS
    """Values of JSON for the scorer; neither the reasoner nor the rewriter sees them."""

    @property
    def key(self) -> str:
        """Return what identifies the request together with its facts."""
        values = json.dumps([self.prompt, self.kind, dict(self.facts)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(values.encode()).hexdigest()


class Splits(NamedTuple):
    """The prompts of a search."""

    feedback: tuple[SearchPrompt, ...]
    selection: tuple[SearchPrompt, ...]
    test: tuple[SearchPrompt, ...]

    @property
    def key(self) -> str:
        """Return what identifies all prompts with their places."""
        keys = [[prompt.key for prompt in split] for split in self]
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def split_by_prompt(
    prompts: Iterable[SearchPrompt], sizes: SplitSettings, excluded: Iterable[str] = ()
) -> Splits:
    """Return three splits of distinct prompts, without those of benchmarks; case and spaces do not count.

    Prompts are taken in their order, so where kinds alternate every split has all of them.
    Raises: SettingError for too few prompts.
    """
    taken, found = {normalized(text) for text in excluded}, list[SearchPrompt]()
    needed = sizes.feedback + sizes.selection + sizes.test
    for prompt in prompts:
        if len(found) == needed:
            break
        if (text := normalized(prompt.prompt)) not in taken:
            taken.add(text)
            found.append(prompt)
    if len(found) < needed:
        fix = "Make the splits smaller, or give more prompts."
        raise SettingError("splits", needed, f"at most as many as there are prompts, {len(found)}", fix)
    first, second = sizes.feedback, sizes.feedback + sizes.selection
    return Splits(tuple(found[:first]), tuple(found[first:second]), tuple(found[second:]))


def read_excluded(path: Path, setting: str) -> list[str]:
    """Return the prompts of a benchmark: a line is a prompt, or a JSON object that has one.

    Raises: SettingError for a file that cannot be read, or a line without a prompt.
    """
    needs = "a text in UTF-8 with one prompt a line, or JSON objects with `prompt`"
    prompts = []
    for number, line in enumerate(read_text(path, setting, needs).split("\n"), 1):
        if not line.startswith("{"):
            prompts += [line] if line.strip() else []
            continue
        place = f"{setting} ({path}, line {number})"
        try:
            prompt = parse_json(line).get("prompt")
        except TextError as error:
            raise SettingError(place, line[:60], needs, f"It {error}.") from error
        if not isinstance(prompt, str):
            raise SettingError(place, line[:60], needs)
        prompts.append(prompt)
    if not prompts:
        raise SettingError(setting, str(path), "at least one prompt")
    return prompts


def normalized(text: str) -> str:
    """Return a text without differences of case and spaces."""
    return " ".join(text.casefold().split())
