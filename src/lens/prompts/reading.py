"""Reading of a prompt as a person writes it: styles, then alternatives and wildcards, then LoRAs and weights.

The command, the HTTP API and the studio read every prompt here, for each image with its own seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from lens.errors import SettingError
from lens.prompts.expansion import expand
from lens.prompts.styles import Styles, apply_styles, read_styles
from lens.prompts.syntax import InlineLora, escape, plain_text, take_loras
from lens.prompts.wildcards import Wildcards


def unread_syntax(prompt: str) -> list[str]:
    """Return what is told of a prompt that is drawn as it is, although it has syntax that could be read."""
    if escape(prompt) == prompt:
        return list(plain_text(prompt).warnings)
    return [
        "A prompt has alternatives, wildcards, LoRAs or weights, which a pipeline draws as words. Read it "
        "with lens.prompts.reading.PromptReader first."
    ]


class ReadPrompt(NamedTuple):
    """A prompt as the model gets it, and what was in its text."""

    prompt: str
    negative_prompt: str
    loras: tuple[InlineLora, ...] = ()
    template: str | None = None
    """The prompt before its choices and syntax were read, where that changed it."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptReader:
    """Reads prompts with the wildcards and the styles of one place."""

    wildcard_folder: Path | None = None
    style_file: Path | None = None
    wildcard_setting: str = "wildcards"
    """What names the folder on this surface, for messages; likewise below."""
    style_setting: str = "styles"

    @cached_property
    def wildcards(self) -> Wildcards:
        return Wildcards(self.wildcard_folder, self.wildcard_setting)

    @cached_property
    def styles(self) -> Styles:
        return read_styles(self.style_file, self.style_setting)

    def read(
        self,
        prompt: str,
        negative_prompt: str,
        seed: int,
        styles: Sequence[str] = (),
        has_guidance: bool = True,
    ) -> ReadPrompt:
        """Return the prompt of the image of a seed; without guidance, styles add no negative prompt.

        Raises: SettingError for a wildcard, style or weight that cannot be used, or a prompt without words.
        """
        if styles:
            styled = apply_styles(prompt, negative_prompt, styles, self.styles, self.style_setting)
            prompt, negative_prompt = styled if has_guidance else (styled[0], negative_prompt)
        chosen, chosen_negative = (expand(text, seed, self.wildcards) for text in (prompt, negative_prompt))
        chosen, loras = take_loras(chosen)
        chosen_negative, negative_loras = take_loras(chosen_negative)
        if negative_loras:
            shown = f"<lora:{negative_loras[0].name}>"
            raise SettingError("negative_prompt", shown, "no LoRA", "Name it in the prompt.")
        texts = [plain_text(text) for text in (chosen, chosen_negative)]
        plain, plain_negative = (one.text.strip() for one in texts)
        if not plain:
            raise SettingError("prompt", prompt, "some words", "Say what the image shows.")
        warnings = tuple(dict.fromkeys(warning for one in texts for warning in one.warnings))
        template = prompt if plain != prompt.strip() else None
        return ReadPrompt(plain, plain_negative, loras, template, warnings)
