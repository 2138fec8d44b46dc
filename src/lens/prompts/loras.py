"""LoRA files by name: the ones that prompts and lists of settings name without a path.

Knows nothing of what is in the files.
"""

import difflib
from pathlib import Path

from lens.errors import SettingError

SUFFIX = ".safetensors"


def lora_files(folder: Path | None) -> dict[str, Path]:
    """Return the LoRA files in a folder by their names: their paths inside it, without the suffix."""
    if folder is None or not folder.is_dir():
        return {}
    files = sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find_lora(name: str, folder: Path | None, setting: str) -> Path:
    """Return the LoRA file of a name in a folder; the folders below may be left out of the name.

    Raises: SettingError for a name without a file, or with several.
    """
    known = lora_files(folder)
    name = name.removesuffix(SUFFIX)
    found = [path for key, path in known.items() if key == name]
    found = found or [path for path in known.values() if path.stem == name]
    if len(found) == 1:
        return found[0]
    shown, needs = f"<lora:{name}>", f"a file {name}{SUFFIX} in the folder of LoRAs"
    if found:
        names = ", ".join(key for key, path in known.items() if path in found)
        raise SettingError("prompt", shown, f"one of {names}", "Several files have that name.")
    near = difflib.get_close_matches(name, known, n=5) or list(known)[:5]
    has = f" It has {', '.join(near)}." if near else ""
    raise SettingError("prompt", shown, needs, f"{setting} names the folder.{has}")
