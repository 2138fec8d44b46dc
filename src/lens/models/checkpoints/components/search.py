"""Search for the components of a model in the folders around its denoiser: by content, never by name.

A ComfyUI installation keeps models in `models/`, with a folder for each kind of file; all of it is searched.
Elsewhere only the denoiser's own folder is. Free of torch.
"""

import logging
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from lens.errors import CheckpointError
from lens.models.checkpoints.components.component_file import (
    COMPONENT_OPTIONS,
    COMPONENT_TITLES,
    ComponentFile,
    misfit,
    read_component,
)
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", GGUF_SUFFIX)
COMFYUI_FOLDERS = ("diffusion_models", "unet", "text_encoders", "clip", "vae")
"""Folders of a ComfyUI installation's `models/` by which it is known."""
MAX_LEVELS_UP = 3
MAX_LISTED = 5


class ComponentSearch:
    """The weight files of a folder or of a ComfyUI installation; each header is read once."""

    def __init__(self, path: Path):
        """Take the denoiser's file, a ComfyUI folder, or any folder of weight files."""
        start = path.absolute().parent if path.is_file() else path
        root = _models_folder(start)
        self.root, self.is_tree = root or start, root is not None

    @property
    def place(self) -> str:
        """Where is searched, for a message."""
        return f"{self.root} and its folders" if self.is_tree else str(self.root)

    @cached_property
    def files(self) -> list[ComponentFile]:
        """Every file that can be read, the smallest first; the others are left out in silence."""
        found = []
        for path in _weight_files(self.root, is_tree=self.is_tree):
            try:
                found.append(read_component(path))
            except (CheckpointError, OSError) as error:
                logger.debug("%s", error)
        return sorted(found, key=lambda file: (file.num_bytes, str(file.path)))

    def denoisers(self) -> list[ComponentFile]:
        """Return the Lens denoisers in the order of their paths."""
        return sorted((file for file in self.files if file.component == "transformer"), key=lambda f: f.path)

    def find(self, component: str, denoiser: ComponentFile, *, needs_tokenizer: bool = False) -> list[Path]:
        """Return the files that hold a component that fits; the first, which is the smallest, is to be taken.

        Raises: CheckpointError that says what was searched, what did not fit, and the option to use.
        """
        fitting, refused = [], []
        for file in self.files:
            if file.component != component:
                continue
            reason = misfit(denoiser, file)
            if reason is None and needs_tokenizer and not file.has_tokenizer:
                reason = "it has no tokenizer inside"
            if reason is None:
                fitting.append(file.path)
            else:
                refused.append(f"{file.path} does not fit, as {reason}")
        if not fitting:
            raise self._nothing_found(component, denoiser, refused)
        return fitting

    def _nothing_found(self, component: str, denoiser: ComponentFile, refused: list[str]) -> CheckpointError:
        lines = "".join(f" {line}." for line in refused[:MAX_LISTED])
        option = COMPONENT_OPTIONS[component]
        return CheckpointError(
            f"{denoiser.path} needs a {COMPONENT_TITLES[component]}, and none was found in {self.place} "
            f"({len(self.files)} files of weights).{lines} Name it with {option} FILE "
            f"({option.removeprefix('--').replace('-', '_')}= in Python)."
        )


def is_weight_file(path: str | Path) -> bool:
    """Return whether a path is that of a file of weights, by its suffix."""
    return Path(path).suffix.lower() in WEIGHT_SUFFIXES


def is_component_tree(folder: Path) -> bool:
    """Return whether a folder is a ComfyUI folder, its `models/`, or holds weight files without a config."""
    if any((folder / name).is_file() for name in ("model_index.json", "config.json")):
        return False
    return (
        _has_comfyui_folders(folder) or _has_comfyui_folders(folder / "models") or _has_weight_files(folder)
    )


def _has_comfyui_folders(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in COMFYUI_FOLDERS)


def _has_weight_files(folder: Path) -> bool:
    return any(is_weight_file(path) for path in folder.iterdir() if path.is_file())


def _models_folder(start: Path) -> Path | None:
    """Return the `models/` of a ComfyUI installation at or around a folder."""
    if _has_comfyui_folders(start / "models"):
        return start / "models"
    for folder in [start, *start.parents][: MAX_LEVELS_UP + 1]:
        if _has_comfyui_folders(folder) and not (folder / "model_index.json").is_file():
            return folder
    return None


def _weight_files(root: Path, *, is_tree: bool) -> Iterator[Path]:
    """Yield the weight files of a folder; in a tree those of all folders, links to folders included."""
    seen: set[Path] = set()
    for place, folders, names in os.walk(root, followlinks=True):
        folder = Path(place)
        if (real := folder.resolve()) in seen:
            folders.clear()  # a link back to a folder that was walked
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if is_tree else []
        for name in sorted(names):
            path = folder / name
            if is_weight_file(path) and not name.startswith("."):
                yield path
