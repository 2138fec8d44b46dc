"""The rule engine: people's wording becomes the grammar that a nano model was trained on.

Paper: Lens report, section on the reasoner; a language model does this for the 3.8B model.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

from lens.nano.evaluation_prompts import is_stated
from lens.nano.vocabulary import unknown_words
from lens.reasoner.nano_rules.plain_grammar import is_plain
from lens.reasoner.nano_rules.reading import LONG_PROMPT, read_prompt
from lens.reasoner.nano_rules.scene import ReadScene
from lens.reasoner.nano_rules.worlds import NanoWorld, world_of
from lens.reasoner.nano_rules.writer import several, with_numbers, write
from lens.reasoner.outcome import Check, Outcome, Reasoned
from lens.reasoner.rules.quotes import missing_quotes

VERSION = 1
"""Changes whenever the rules do, so that cached answers of others are not taken for theirs."""
MAX_LETTERS = 2000
"""Characters above which a prompt is left alone: no model of this world was trained on as many."""
_NUM_NEAR = 5


class NanoReasoner:
    """A `Reasoner` by rules; it needs no language model."""

    name = "nano-rules"
    version = VERSION

    def __init__(self, world: NanoWorld | None = None):
        """`world` is what the model knows; by default that of the weights that ship."""
        self.world = world or world_of(_shipped_tokenizer())

    def __call__(
        self, prompt: str, *, seed: int = 0, should_stop: Callable[[], bool] | None = None
    ) -> Reasoned:
        """Return the answer to a request, which takes no time to stop; it does not depend on the seed."""
        if len(prompt) > MAX_LETTERS:
            reason = f"it has {len(prompt)} characters, and the rules read up to {MAX_LETTERS}"
            return self._answer("unchanged", prompt, prompt, reason)
        scene = read_prompt(prompt)
        self._drop_unknown(scene)
        told = self._told(prompt, scene)
        if scene.doubts:
            doubt = f"it can be read in two ways: {scene.doubts[0]}"
            return self._answer("unchanged", prompt, prompt, _joined([doubt, *told]))
        if scene.is_empty:
            return self._answer("failed", prompt, prompt, self._nothing_known(prompt, scene))
        written = write(scene)
        is_same = written == _as_written(prompt)
        if not scene.unknown and (is_same or self._is_plain(prompt, scene)):
            return self._answer("unchanged", prompt, prompt, _joined(told))
        if len(prompt.split()) > LONG_PROMPT and scene.unknown:
            reason = "it is a detailed description already, and not all of it is understood"
            return self._answer("unchanged", prompt, prompt, _joined([reason, *told]))
        checks = self._checks(prompt, written, scene)
        if broken := [check.detail for check in checks if not check.is_kept]:
            return self._answer("failed", prompt, prompt, _joined([*broken, *told]), checks)
        return self._answer("refined", written, prompt, _joined(told), checks)

    def _answer(
        self,
        outcome: Outcome,
        prompt: str,
        original: str,
        reason: str | None,
        checks: tuple[Check, ...] = (),
    ) -> Reasoned:
        model = f"{self.name} {self.version}"
        return Reasoned(outcome, prompt, original, reason, checks=checks, model=model)

    def _checks(self, prompt: str, written: str, scene: ReadScene) -> tuple[Check, ...]:
        """Return whether quoted text is kept, and whether what is written reads as what was read."""
        lost = [] if scene.text is None else missing_quotes(prompt, written)
        wanted, again = with_numbers(scene).spec(), read_prompt(written).spec()
        is_same = is_stated(wanted, again) and is_stated(again, wanted)
        return (
            Check("quoted_text", not lost, f"the text {', '.join(lost)} is missing" if lost else ""),
            Check("scene", is_same, "" if is_same else f"\"{written}\" can be read as another scene"),
        )

    def _is_plain(self, prompt: str, scene: ReadScene) -> bool:
        is_open = any(group.count is None for group in scene.groups)
        return not is_open and is_plain(prompt, self.world.class_names, self.world.backgrounds)

    def _drop_unknown(self, scene: ReadScene) -> None:
        """Leave out the things that the model does not know, and tell them."""
        names = [group.class_name for group in scene.groups]
        kept = [number for number, name in enumerate(names) if name in self.world.class_names]
        scene.unknown += [name for name in names if name not in self.world.class_names]
        place = {old: new for new, old in enumerate(kept)}
        scene.relations = [
            (place[a], relation, place[b]) for a, relation, b in scene.relations if {a, b} <= set(kept)
        ]
        scene.groups = [scene.groups[number] for number in kept]
        scene.is_near = scene.is_near and len(scene.groups) == 2

    def _told(self, prompt: str, scene: ReadScene) -> list[str]:
        """Return what the user should know."""
        told = list(scene.notes)
        if scene.unknown:
            words = list(dict.fromkeys(scene.unknown))
            near = self._near(prompt)
            told.append(f"lens-nano does not know {_listed(words)}{f'; it knows {near}' if near else ''}")
        for group in scene.groups:
            if group.count is None:
                told.append(f"the number of {group.class_name} is open, so it asks for {several(scene)}")
            elif group.count > self.world.max_count:
                told.append(f"this model draws at most {self.world.max_count} of a kind, not {group.count}")
            if group.colour and not self.world.has_colours:
                own = f"this model draws each {group.class_name} in its own colours"
                told.append(f"{own}, not in {group.colour}")
        if scene.background not in (None, *self.world.backgrounds):
            told.append(f"this model has no background in {scene.background}")
        if scene.text is not None and not self.world.has_signs:
            told.append("this model cannot write")
        return told

    def _near(self, prompt: str) -> str:
        """Return the names of known things that are most like the unknown ones."""
        names = [name for word in unknown_words(prompt) for name in word.neighbours]
        known = [name for name in dict.fromkeys(names) if name in self.world.class_names]
        return ", ".join(known[:_NUM_NEAR])

    def _nothing_known(self, prompt: str, scene: ReadScene) -> str:
        words = _listed(list(dict.fromkeys(scene.unknown))) or "anything that this prompt names"
        near = self._near(prompt) or ", ".join(sorted(self.world.class_names)[:_NUM_NEAR])
        return f"lens-nano does not know {words}; it knows {near}: `lens info lens-nano` lists all"


def _as_written(prompt: str) -> str:
    """Return a prompt without the capital and the full stop of a sentence."""
    return prompt[:1].lower() + prompt[1:].removesuffix(".")


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


def _joined(reasons: list[str]) -> str | None:
    return "; ".join(reasons) or None


@cache
def _shipped_tokenizer() -> Path:
    return Path(str(files("lens.nano"))) / "weights/lens-nano/tokenizer/tokenizer.json"
