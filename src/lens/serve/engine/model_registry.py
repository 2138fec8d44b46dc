"""The registry of models and LoRAs that the server offers, and the loaded models.

Models whose folders share an autoencoder or a text encoder share it in memory.
Knows nothing of requests or queues.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.diffusers_folder import component_folder, missing_files
from lens.models.checkpoints.hashing import content_hash
from lens.sampling.resolved_model import ResolvedModel
from lens.serve.engine.request import LoraRequest, ModelInfo

if TYPE_CHECKING:
    from lens.sampling.pipeline import LensPipeline

SHARED_COMPONENTS = ("scheduler", "vae", "text_encoder", "tokenizer")

LoraSet = tuple[LoraRequest, ...]


class ModelEntry(NamedTuple):
    """A model of the server and its folder."""

    info: ModelInfo
    recorded_name: str
    """Model name in the metadata of images: the known name, or the name given to a folder."""
    model: ResolvedModel

    @property
    def folder(self) -> Path:
        return self.model.folder


class TextEncoderKey(NamedTuple):
    """The source of text features; models with equal keys can share features."""

    encoder: Path
    layers: tuple[int, ...]
    date: str
    """The date in the conversation around a prompt."""


class ModelRegistry:
    """The models and LoRAs that requests can name; each file is hashed once."""

    def __init__(self, models: Mapping[str, str | Path], loras: Mapping[str, str | Path] | None = None):
        """Take names of models, each with a known name or folder, and names of LoRAs, each with its file.

        Raises: SettingError or CheckpointError for a model that does not exist.
        """
        if not models:
            raise SettingError("models", dict(models), "at least one model")
        self.models = {name: _model_entry(name, source) for name, source in models.items()}
        self.loras = {name: Path(path) for name, path in (loras or {}).items()}
        self._hashes: dict[Path, str] = {}

    @classmethod
    def from_names(
        cls, models: Sequence[str], loras: Mapping[str, str | Path] | None = None
    ) -> "ModelRegistry":
        """Return a registry of known models and of folders, each under its own name."""
        return cls({Path(name).name if Path(name).is_dir() else name: name for name in models}, loras)

    def lora_hash(self, name: str) -> str:
        """Return the hash of a LoRA file."""
        path = self.loras[name]
        if path not in self._hashes:
            self._hashes[path] = content_hash(path)
        return self._hashes[path]


def _model_entry(name: str, source: str | Path) -> ModelEntry:
    model = ResolvedModel.of(source)
    if missing := missing_files(model.folder):
        raise CheckpointError(
            f"{model.folder} lacks {', '.join(missing)}. Download it again, or serve another model."
        )
    info = ModelInfo(name, *model.defaults, model.variant)
    is_folder = Path(source).expanduser().is_dir()
    return ModelEntry(info, name if is_folder else str(source), model)


class LoadedModel:
    """A pipeline in memory and the LoRAs that are loaded into its denoiser."""

    def __init__(self, entry: ModelEntry, pipeline: "LensPipeline", loras: Mapping[str, Path]):
        self.entry, self.pipeline = entry, pipeline
        layers = tuple(pipeline.transformer.config.selected_layer_index)
        self.text_encoder_key = TextEncoderKey(
            component_folder(entry.folder, "text_encoder").resolve(),
            layers,
            pipeline.config.prompt_date,  # type: ignore[attr-defined]
        )
        self._lora_files = loras
        self._adapter_names: dict[str, str] = {}
        """Adapter name in the denoiser, by the name of the LoRA."""
        self._active: LoraSet = ()

    @property
    def denoiser(self) -> Any:
        return self.pipeline.transformer

    def load_adapters(self, adapters: LoraSet) -> None:
        """Load the adapters that the denoiser lacks; the active ones stay active.

        Raises: CheckpointError for a file that does not fit the model; the denoiser is then unchanged.
        """
        from lens.models.checkpoints.adapters.lora import load_loras, set_lora_weights

        for adapter in adapters:
            if adapter.name in self._adapter_names:
                continue
            name = f"offered_{len(self._adapter_names)}"  # LoRA names may contain dots, adapter names may not
            try:
                load_loras(self.denoiser, [(self._lora_files[adapter.name], 1.0)], [name])
                self._adapter_names[adapter.name] = name
            finally:
                set_lora_weights(self.denoiser, self._weights(self._active))

    def set_adapters(self, adapters: LoraSet) -> None:
        """Activate exactly these adapters."""
        if adapters == self._active:
            return
        from lens.models.checkpoints.adapters.lora import set_lora_weights

        set_lora_weights(self.denoiser, self._weights(adapters))
        self._active = adapters

    def _weights(self, adapters: LoraSet) -> dict[str, float]:
        return {self._adapter_names[adapter.name]: adapter.weight for adapter in adapters}


class LoadedModels:
    """Models by name, each loaded at its first use."""

    def __init__(self, registry: ModelRegistry, device: str, dtype: str):
        self.registry, self.device, self.dtype = registry, device, dtype
        self._loaded: dict[str, LoadedModel] = {}
        self._components: dict[Path, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def __getitem__(self, name: str) -> LoadedModel:
        """Return a model; load it at its first use.

        Raises: CheckpointError or MemoryNeedError.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self.registry.models[name])
        return self._loaded[name]

    def _load(self, entry: ModelEntry) -> LoadedModel:
        import torch

        from lens.sampling.pipeline import LensPipeline

        component_paths = {part: component_folder(entry.folder, part).resolve() for part in SHARED_COMPONENTS}
        shared_components = {
            part: self._components[place]
            for part, place in component_paths.items()
            if place in self._components
        }
        pipeline = LensPipeline.from_pretrained(
            entry.model, torch_dtype=getattr(torch, self.dtype), **shared_components
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(self.device)
        self._components |= {place: getattr(pipeline, part) for part, place in component_paths.items()}
        return LoadedModel(entry, pipeline, self.registry.loras)
