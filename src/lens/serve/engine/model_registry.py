"""The registry of models and LoRAs that the server offers, and the loaded models.

Models whose files of a component are the same share it in memory.
Knows nothing of requests or queues.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.diffusers_folder import missing_files
from lens.models.checkpoints.hashing import content_hash, weights_hash
from lens.sampling.resolved_model import ResolvedModel
from lens.serve.engine.request import LoraRequest, ModelInfo
from lens.serve.settings.server import ServedModel

if TYPE_CHECKING:
    from lens.sampling.pipeline import LensPipeline

SHARED_COMPONENTS = ("scheduler", "vae", "text_encoder", "tokenizer")

LoraSet = tuple[LoraRequest, ...]


class ModelEntry(NamedTuple):
    """A model of the server and its files."""

    info: ModelInfo
    recorded_name: str
    """Model name in the metadata of images: the known name, or the name given to a folder or file."""
    model: ResolvedModel

    @property
    def folder(self) -> Path | None:
        """The model's folder; None for a model of single files."""
        return self.model.folder

    def paths(self) -> dict[str, Path]:
        """Return the file or folder of each component that models can share."""
        parts = [part for part in SHARED_COMPONENTS if part in self.model.parts or self.model.folder]
        return {part: self.model.component_path(part).resolve() for part in parts}


class TextEncoderKey(NamedTuple):
    """The source of text features; models with equal keys can share features."""

    encoder: Path
    tokenizer: Path
    layers: tuple[int, ...]
    date: str
    """The date in the conversation around a prompt."""


class ModelRegistry:
    """The models and LoRAs that requests can name; each file is hashed once."""

    def __init__(
        self,
        models: Mapping[str, str | Path | ServedModel],
        loras: Mapping[str, str | Path] | None = None,
    ):
        """Take names of models, each with where it is, and names of LoRAs, each with its file.

        Raises: SettingError or CheckpointError for a model that does not exist.
        """
        if not models:
            raise SettingError("models", dict(models), "at least one model")
        self.models = {
            name: _model_entry(name, ServedModel.model_validate(source)) for name, source in models.items()
        }
        self.loras = {name: Path(path) for name, path in (loras or {}).items()}
        self._hashes: dict[Path, dict[str, Any]] = {}

    @classmethod
    def from_names(
        cls, models: Sequence[str | ServedModel], loras: Mapping[str, str | Path] | None = None
    ) -> "ModelRegistry":
        """Return a registry of models, each under its own name.

        Raises: SettingError for two models with one name, and as the constructor.
        """
        served: dict[str, ServedModel] = {}
        for entry in map(ServedModel.model_validate, models):
            if served.setdefault(entry.served_name, entry) != entry:
                fix = "Give one a name of its own: {model: ..., name: ...}."
                raise SettingError("models", entry.served_name, "one model for each name", fix)
        return cls(served, loras)

    def lora_hashes(self, name: str) -> dict[str, Any]:
        """Return the hashes of a LoRA file, by the names of their fields in the metadata of an image."""
        path = self.loras[name]
        if path not in self._hashes:
            hashes = {"sha256": content_hash(path), "weights_sha256": weights_hash(path)}
            self._hashes[path] = hashes
        return self._hashes[path]


def _model_entry(name: str, served: ServedModel) -> ModelEntry:
    model = ResolvedModel.of(
        served.model,
        text_encoder=served.text_encoder,
        vae=served.vae,
        tokenizer=served.tokenizer,
        prompt_date=served.prompt_date,
    )
    missing = [] if model.folder is None else missing_files(model.folder)
    if missing := [file for file in missing if file.split("/")[0] not in model.parts]:
        raise CheckpointError(
            f"{model.folder} lacks {', '.join(missing)}. Download it again, or serve another model."
        )
    info = ModelInfo(name, *model.defaults, model.variant, model.trained_bases)
    is_path = Path(served.model).expanduser().exists()
    return ModelEntry(info, name if is_path else served.model, model)


class LoadedModel:
    """A pipeline in memory and the LoRAs that are loaded into its denoiser."""

    def __init__(self, entry: ModelEntry, pipeline: "LensPipeline", loras: Mapping[str, Path]):
        self.entry, self.pipeline = entry, pipeline
        layers = tuple(pipeline.transformer.config.selected_layer_index)
        self.text_encoder_key = TextEncoderKey(
            entry.model.component_path("text_encoder").resolve(),
            entry.model.component_path("tokenizer").resolve(),
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
            self.denoiser.release_cached_passes()
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

    def __init__(self, registry: ModelRegistry, device: str, dtype: str, memory: str = "auto"):
        self.registry, self.device, self.dtype, self.memory = registry, device, dtype, memory
        self._loaded: dict[str, LoadedModel] = {}
        self._components: dict[tuple[str, Path], Any] = {}
        """Loaded components by name and place; a tokenizer may be inside the text encoder's file."""

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

        entry.model.log_summary()
        paths = entry.paths()
        shared_components = {
            part: self._components[part, path]
            for part, path in paths.items()
            if (part, path) in self._components
        }
        on_cpu = {"memory": self.memory} if self.device == "cpu" else {}
        pipeline = LensPipeline.from_pretrained(
            entry.model, torch_dtype=getattr(torch, self.dtype), **shared_components, **on_cpu
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(self.device)
        self._components |= {(part, path): getattr(pipeline, part) for part, path in paths.items()}
        return LoadedModel(entry, pipeline, self.registry.loras)
