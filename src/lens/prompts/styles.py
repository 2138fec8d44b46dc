"""Styles: a YAML file of named prompt patterns.

    watercolour:
      prompt: "{prompt}, a watercolour painting on rough paper"
      negative_prompt: photograph
    night: "{prompt}, on a black background"

`{prompt}` is the place of the prompt; a pattern without it is added behind a comma.
"""

import difflib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lens.config import Settings
from lens.core.prompt_text import check_prompt_text
from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.text_files import read_yaml

DEFAULT_STYLES = Path(__file__).with_name("styles.yaml")
PLACE = "{prompt}"
MAX_STYLES = 500
MAX_NAME_CHARACTERS = 60


class Style(Settings):
    """A pattern for prompts, and what to add to the negative prompt."""

    prompt: str = PLACE
    negative_prompt: str = ""

    def apply(self, prompt: str) -> str:
        """Return the prompt in the pattern."""
        if PLACE in self.prompt:
            return self.prompt.replace(PLACE, prompt)
        return ", ".join(filter(None, (prompt, self.prompt)))


Styles = Mapping[str, Style]
"""Styles by their names."""


def read_styles(path: Path | None, setting: str) -> Styles:
    """Return the styles of a file; those of the package where there is no file.

    Raises: SettingError for a file that cannot be read, or a pattern that is none.
    """
    path = path if path is not None and path.is_file() else DEFAULT_STYLES
    return _parse_styles(read_yaml(path, setting) or {}, str(path))


def write_styles(styles: Styles, path: Path) -> None:
    """Write styles to a file. Raises: FileWriteError."""
    import yaml

    values = {name: style.model_dump(exclude_defaults=True) for name, style in styles.items()}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    write_bytes_atomic(path, text.encode())


def apply_styles(
    prompt: str, negative_prompt: str, names: Sequence[str], styles: Styles, setting: str = "styles"
) -> tuple[str, str]:
    """Return a prompt and a negative prompt in the patterns of styles, one after the other.

    Raises: SettingError for a style that does not exist.
    """
    for name in names:
        if name not in styles:
            near = difflib.get_close_matches(name, styles, n=1)
            hint = f"Did you mean {near[0]}?" if near else ""
            needs = f"one of {', '.join(styles)}" if styles else "to be left out: there are no styles"
            raise SettingError(setting, name, needs, hint)
        prompt = styles[name].apply(prompt)
        negative_prompt = ", ".join(filter(None, (negative_prompt, styles[name].negative_prompt)))
    return prompt, negative_prompt


_EDITING = threading.Lock()


def edit_styles(path: Path, change: Callable[[dict[str, Style]], object]) -> Styles:
    """Change the styles of a file by a function, and return them; the file need not exist.

    Raises: SettingError for a file that cannot be read; FileWriteError.
    """
    with _EDITING:
        styles = dict(read_styles(path, "styles"))
        change(styles)
        if len(styles) > MAX_STYLES:
            raise SettingError("styles", f"{len(styles)} styles", f"at most {MAX_STYLES}")
        write_styles(styles, path)
    return styles


def check_pattern(pattern: str) -> str:
    """Return the pattern of a style without the blanks around it. Raises: SettingError for an empty one."""
    if not pattern.strip():
        raise SettingError("pattern", pattern, "some text", "For example: {prompt}, at night.")
    check_prompt_text(pattern, "pattern")
    return pattern.strip()


def check_style_name(name: str) -> str:
    """Return the name of a style without the blanks around it. Raises: SettingError."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        needs = f"a name of 1 to {MAX_NAME_CHARACTERS} characters in one line"
        raise SettingError("style", name[:MAX_NAME_CHARACTERS], needs)
    return name


def _parse_styles(values: object, source: str) -> Styles:
    if not isinstance(values, dict):
        raise SettingError("styles", source, "a mapping of names to patterns")
    if len(values) > MAX_STYLES:
        raise SettingError("styles", f"{len(values)} styles", f"at most {MAX_STYLES}")
    return {
        check_style_name(str(name)): Style.of(
            {"prompt": pattern} if isinstance(pattern, str) else pattern or {},
            source=f"the style {name} of {source}",
        )
        for name, pattern in values.items()
    }
