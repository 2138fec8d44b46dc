"""A model and what its files say: where each component is, configs, sampling defaults, hashes.

A model is a folder in diffusers layout, or a denoiser's file with a file or folder for each other component.
A command makes one `ResolvedModel` and passes it on, so that each file is read once. A folder is read without
torch.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lens.errors import CheckpointError
from lens.models.checkpoints.diffusers_folder import component_config, component_folder
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.reader import read_json
from lens.models.checkpoints.registry import known_model, resolve_model
from lens.sampling.defaults import SamplingDefaults, sampling_defaults, variant_from_name

COMPONENTS_WITH_WEIGHTS = ("transformer", "text_encoder", "vae")
COMPONENTS_WITH_FILES = (*COMPONENTS_WITH_WEIGHTS, "tokenizer")


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine; what is read from its files is read at the first use."""

    name: str
    """Known name, folder, file or hub id, as it was requested."""
    folder: Path | None
    """The folder in diffusers layout; None for a model that consists of single files."""
    parts: Mapping[str, Path] = field(default_factory=dict)
    """The file or folder of each component that is not the folder's own."""

    @classmethod
    def of(
        cls, name_or_folder: str | Path, *, revision: str | None = None, offline: bool | None = None
    ) -> Self:
        """Return the model of a known name, a folder or a hub id; downloads it if necessary.

        Raises: SettingError for an unknown name, CheckpointError for a folder or download that is not usable.
        """
        return cls(str(name_or_folder), resolve_model(name_or_folder, revision=revision, offline=offline))

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
            return str(self.component_path("transformer").resolve())
        return str(self.folder.resolve()) if Path(self.name).expanduser().is_dir() else self.name

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
        """The content of model_index.json."""
        return {} if self.folder is None else read_json(self.folder / "model_index.json")

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The config of each component with weights."""
        folders = {part: self.component_path(part) for part in COMPONENTS_WITH_WEIGHTS}
        return {part: component_config(at) for part, at in folders.items() if (at / "config.json").is_file()}

    @property
    def variant(self) -> str:
        """The variant that the folder states, else that of its known name or of its folder's name."""
        known = known_model(self.name)
        stated = self.index.get("lens_variant")
        return stated or (known.variant if known else variant_from_name(str(self.folder)))

    @property
    def defaults(self) -> SamplingDefaults:
        """Steps, guidance and base resolution: those that the folder states, else its variant's."""
        stated = (self.index.get(f"default_{key}") for key in ("steps", "guidance", "base_resolution"))
        return sampling_defaults(self.variant, *stated)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all files of the model."""
        if self.folder is not None and not self.parts:
            return content_hash(self.folder)
        lines = [f"{component} {self.part_hash(component)}" for component in COMPONENTS_WITH_FILES]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
