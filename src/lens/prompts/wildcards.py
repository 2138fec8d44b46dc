"""Wildcard files: `__colour__` in a prompt stands for a line of `colour.txt` in a folder.

Knows nothing of prompts around the wildcard.
"""

import difflib
import re
from pathlib import Path

from lens.errors import SettingError
from lens.text_files import read_text

WILDCARD = re.compile(r"__(?!_)([^\W_](?:[\w/-]{0,60}?[^\W_])?)__(?!_)")
"""`__colour__`, or `__clothes/hats__` for a file below; names have no dots, so they stay in the folder."""
SUFFIX = ".txt"


class Wildcards:
    """The wildcard files of one folder; each is read once."""

    def __init__(self, folder: Path | None, setting: str):
        """Take the folder, which need not exist, and the setting that names it, for messages."""
        self._folder, self._setting = folder, setting
        self._lines: dict[str, list[str]] = {}

    def lines(self, name: str) -> list[str]:
        """Return the texts that a wildcard stands for: the lines of its file, comments and empty ones aside.

        Raises: SettingError for a wildcard without a file, or a file that cannot be read or has no lines.
        """
        if name not in self._lines:
            self._lines[name] = self._read(name)
        return self._lines[name]

    def names(self) -> list[str]:
        """Return the names of all wildcards of the folder."""
        if self._folder is None or not self._folder.is_dir():
            return []
        files = self._folder.rglob(f"*{SUFFIX}")
        return sorted(file.relative_to(self._folder).with_suffix("").as_posix() for file in files)

    def _read(self, name: str) -> list[str]:
        shown = f"__{name}__"
        if self._folder is None or not (path := self._folder / f"{name}{SUFFIX}").is_file():
            known = self.names()
            near = difflib.get_close_matches(name, known, n=5) or known[:5]
            has = f" It has {', '.join(near)}." if near else ""
            fix = rf"{self._setting} names the folder.{has} \__{name}\__ draws the words."
            raise SettingError("prompt", shown, f"a file {name}{SUFFIX} in the folder of wildcards", fix)
        text = read_text(path, f"the wildcard {shown}", "a text file with a line for each choice")
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        if not lines:
            raise SettingError(f"the wildcard {shown}", path.name, "a file with at least one line")
        return lines
