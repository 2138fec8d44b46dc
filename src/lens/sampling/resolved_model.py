"""A model and what its files say: where each component is, configs, sampling defaults, hashes.

A model is a folder in diffusers layout, or a denoiser's file with a file or folder for each other component;
components of a folder can be replaced in the same way. A command makes one `ResolvedModel` and passes it on,
so that each file is read once. Only the configs of single files need torch.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lens.errors import CheckpointError
from lens.models.checkpoints.components.component_file import read_component
from lens.models.checkpoints.components.model_parts import check_named_parts, resolve_parts
from lens.models.checkpoints.components.search import is_component_tree, is_weight_file
from lens.models.checkpoints.detect import STATED_SETTINGS
from lens.models.checkpoints.diffusers_folder import absent_components, component_config, component_folder
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.reader import read_json, validate_file
from lens.models.checkpoints.registry import known_model, resolve_model
from lens.models.prompt_date import PINNED_DATE, parse_prompt_date
from lens.models.shapes import check_config
from lens.sampling.defaults import SamplingDefaults, sampling_defaults, variant_from_name
from lens.text_files import TextError, parse_json

logger = logging.getLogger(__name__)

COMPONENTS_WITH_WEIGHTS = ("transformer", "text_encoder", "vae")
COMPONENTS_WITH_FILES = (*COMPONENTS_WITH_WEIGHTS, "tokenizer")
VARIANT_TITLES = {"lens": "Lens", "turbo": "Turbo", "base": "Base"}

PathOrName = str | Path


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**16


INDEX_NEEDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lens_variant": (lambda value: isinstance(value, str), "text"),
    "prompt_date": (lambda value: isinstance(value, str), "a date, YYYY-MM-DD"),
    "default_steps": (_is_count, "a whole number"),
    "default_guidance": (lambda value: type(value) in (int, float) and math.isfinite(value), "a number"),
    "default_base_resolution": (_is_count, "a whole number"),
    "trained_base_resolutions": (
        lambda value: isinstance(value, list) and all(map(_is_count, value)), "a list of whole numbers"
    ),
}  # fmt: skip
"""What a model_index.json states for Lens: a check of each value, and what it needs."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine; what is read from its files is read at the first use."""

    name: str
    """Known name, folder, file or hub id, as it was requested."""
    folder: Path | None
    """The folder in diffusers layout; None for a model that consists of single files."""
    parts: Mapping[str, Path] = field(default_factory=dict)
    """The file or folder of each component that is not the folder's own."""
    requested_date: str | None = None
    """The date that was asked for instead of the model's own."""
    notes: tuple[str, ...] = ()
    """A line for each choice among several files that fit."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The metadata of a denoiser's file."""

    @classmethod
    def of(
        cls,
        model: PathOrName,
        *,
        text_encoder: PathOrName | None = None,
        vae: PathOrName | None = None,
        tokenizer: PathOrName | None = None,
        prompt_date: str | None = None,
        passed: Collection[str] = (),
        revision: str | None = None,
        offline: bool | None = None,
    ) -> Self:
        """Return the model of a known name, a folder, a hub id, a denoiser's file or a ComfyUI folder.

        A named part replaces that of a folder. For a denoiser's file, the parts that are neither named nor
        `passed` (loaded by the caller) are searched for around it. A model of the hub is downloaded if
        necessary.
        Raises: SettingError for an unknown name or a part that is something else; CheckpointError for files
        that are not usable, do not fit each other, or are not found.
        """
        given = {"text_encoder": text_encoder, "vae": vae, "tokenizer": tokenizer}
        named = {part: Path(path) for part, path in given.items() if path is not None}
        date = None if prompt_date is None else parse_prompt_date(prompt_date)
        path = Path(model).expanduser()
        if is_weight_file(path) and not path.is_dir():
            validate_file(path)
        if path.is_file() or (path.is_dir() and is_component_tree(path)):
            found = resolve_parts(path, named, passed)
            return cls(str(model), None, found.paths, date, found.notes, found.metadata)
        folder = resolve_model(model, revision=revision, offline=offline)
        if named:
            named = check_named_parts(read_component(component_folder(folder, "transformer")), named)
        return cls(str(model), folder, named, date)

    @classmethod
    def find_local(cls, name: str) -> Self | None:
        """Return the model if it is on this machine, or None if it would have to be downloaded."""
        logger = logging.getLogger("lens")
        level = logger.level
        logger.setLevel(logging.ERROR)  # the registry warns of each source that is not on this machine
        try:
            return cls.of(name, offline=True)
        except CheckpointError:
            return None
        finally:
            logger.setLevel(level)

    @property
    def recorded_name(self) -> str:
        """The name that image metadata records: an absolute path for a folder or file, else the name."""
        if self.folder is None:
            return str(self.component_path("transformer").absolute())
        return str(self.folder.resolve()) if Path(self.name).expanduser().is_dir() else self.name

    def has(self, component: str) -> bool:
        """Return whether the model has files of a component; the caller of `of` may have passed it loaded."""
        return self.folder is not None or component in self.parts

    def component_path(self, component: str) -> Path:
        """Return the folder or file of a component; a tokenizer may be inside the text encoder's file.

        Raises: CheckpointError for a component that the model does not have.
        """
        if component in self.parts:
            return self.parts[component]
        if self.folder is None:
            raise CheckpointError(f"{self.name} has no {component}.")
        return component_folder(self.folder, component)

    def part_hash(self, component: str) -> str:
        """Return the SHA-256 of a component: of its file, or of the files of its folder."""
        if component not in self._part_hashes:
            self._part_hashes[component] = content_hash(self.component_path(component))
        return self._part_hashes[component]

    @cached_property
    def _part_hashes(self) -> dict[str, str]:
        return {}

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of model_index.json; for a model of files, the same settings of the denoiser's file."""
        if self.folder is not None:
            path = self.folder / "model_index.json"
            return _checked_index(read_json(path), path)
        stated = {key: _parse(self.metadata[key]) for key in STATED_SETTINGS if key in self.metadata}
        return _checked_index(stated, self.component_path("transformer"))

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The config of each component with weights, as far as the model has it."""
        paths = {part: self.component_path(part) for part in COMPONENTS_WITH_WEIGHTS if self.has(part)}
        absent = absent_components(self.folder) if self.folder is not None else []
        return {
            part: _file_config(part, path) if path.is_file() else _folder_config(part, path)
            for part, path in paths.items()
            if path.is_file()
            or (path / "config.json").is_file()
            or (part == "transformer" and part not in absent)  # its sizes are needed everywhere
        }

    @property
    def variant(self) -> str:
        """The variant that the files state, else that of the known name or of the folder's or file's name."""
        known = known_model(self.name)
        stated = self.index.get("lens_variant")
        return stated or (known.variant if known else variant_from_name(self._naming_text))

    @property
    def _naming_text(self) -> str:
        """The text that names the variant: a folder's path, a file's name, or else its folder's name."""
        if self.folder is not None:
            return str(self.folder)
        path = self.component_path("transformer").absolute()
        return path.stem if "lens" in path.stem.lower() else path.parent.name

    @cached_property
    def prompt_date(self) -> str:
        """The date in the conversation around a prompt: as asked for, as the model states, or pinned."""
        stated = self.requested_date or self.index.get("prompt_date") or PINNED_DATE
        return parse_prompt_date(stated)

    @property
    def defaults(self) -> SamplingDefaults:
        """Steps, guidance and base resolution: those that the folder states, else its variant's."""
        stated = (self.index.get(f"default_{key}") for key in ("steps", "guidance", "base_resolution"))
        return sampling_defaults(self.variant, *stated)

    @property
    def trained_bases(self) -> tuple[int, ...]:
        """The base resolutions that the files say the model was trained at, else its default one."""
        return tuple(self.index.get("trained_base_resolutions") or [self.defaults.base_resolution])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all files of the model."""
        if self.folder is not None and not self.parts:
            return content_hash(self.folder)
        hashes = [f"{part} {self.part_hash(part)}" for part in COMPONENTS_WITH_FILES if self.has(part)]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @property
    def summary(self) -> str | None:
        """One line: the defaults and the parts of a model of several files; None for a plain folder."""
        if not self.parts:
            return None
        source = self.folder if self.folder is not None else self.component_path("transformer")
        steps, guidance, _ = self.defaults
        titles = {"text_encoder": "text encoder", "vae": "VAE", "tokenizer": "tokenizer"}
        named = [f"{titles[part]} {_label(self.parts[part])}" for part in titles if self._is_listed(part)]
        variant = VARIANT_TITLES.get(self.variant, self.variant)
        return f"{source.name}: {variant}, {steps} steps, guidance {guidance:g}; {', '.join(named)}"

    def log_summary(self) -> None:
        """Log the summary, and each choice among several files that fit."""
        for line in (self.summary, *self.notes):
            if line is not None:
                logger.info(line)

    def _is_listed(self, part: str) -> bool:
        is_inside = part == "tokenizer" and self.parts.get(part) == self.parts.get("text_encoder")
        return part in self.parts and not is_inside


def _checked_index(index: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what a model states of itself. Raises: CheckpointError for a value of another kind."""
    for name, (is_fit, needs) in INDEX_NEEDS.items():
        if index.get(name) is not None and not is_fit(index[name]):
            raise CheckpointError(f"{path} has {name} = {index[name]!r:.80}, but it needs {needs}.")
    return index


def _label(path: Path) -> str:
    """Return the name of a file; that of a folder with the one above it, as components' folders are alike."""
    return f"{path.absolute().parent.name}/{path.name}" if path.is_dir() else path.name


def _parse(text: str) -> Any:
    """Return a value of a file's metadata, where everything is text."""
    try:
        return parse_json(text)
    except TextError:
        return text


def _folder_config(component: str, folder: Path) -> dict[str, Any]:
    config = component_config(folder)
    if config.get("model_type") in (None, "gpt_oss"):
        check_config(component, config, folder / "config.json")
    return config


def _file_config(component: str, path: Path) -> dict[str, Any]:
    """Return the config of a component in a single file, from its metadata or else from its shapes."""
    from lens.models.checkpoints import gpt_oss_layouts, single_file, vae
    from lens.models.checkpoints.reader import shapes_of

    if component == "transformer":
        return dict(single_file.denoiser_config(single_file.open_denoiser_file(path), source=path))
    if component == "vae":
        return vae.open_vae_file(path)[1]
    stored = gpt_oss_layouts.open_text_encoder_file(path)
    return gpt_oss_layouts.infer_text_encoder_config(shapes_of(stored.tensors), source=path)
