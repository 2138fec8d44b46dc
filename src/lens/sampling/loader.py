"""Loader of pipelines: from a model's name, folder or files to a `LensPipeline`, with strict checks.

Loads the five components directly, which takes a fraction of the time of diffusers' generic loader. Arguments
that only diffusers supports (device maps, its quantisation) go to its loader, after the same strict checks.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.diffusers_folder import (
    absent_components,
    check_folder,
    component_folder,
    materialize_shared,
    materialize_variant,
)
from lens.models.checkpoints.module_loader import one_at_a_time
from lens.models.checkpoints.reader import validate_file
from lens.sampling.memory_ladder import STREAMED_RUNGS, RungName, apply_rung, resolve_rung
from lens.sampling.resolved_model import ResolvedModel

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None

RELEASED_SCHEDULER = {
    "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
    "time_shift_type": "exponential",
}  # fmt: skip


class LoaderMixin:
    """Class methods of the pipeline that load one, under diffusers' names."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: ResolvedModel | str | Path, torch_dtype: Any = None, **kwargs: Any
    ) -> Self:
        """Return the pipeline of a known model's name, a folder in diffusers layout, or a hub id.

        Weights load strictly. `torch_dtype` is one dtype, or a dtype by component name with a "default";
        without it, weights keep their stored dtype. Components may be passed (`vae=...`), loaded or as paths.
        `memory` ("8GB", or "auto" for what is free) runs the model in main memory on a rung of the memory
        ladder. `variant` ("fp16") names the weights that `save_pretrained(variant=...)` wrote. A component
        given as None is left out. Other arguments go to diffusers' loader.
        Raises: SettingError, CheckpointError or MemoryNeedError that states the remedy.
        """
        return load_pipeline(cls, pretrained_model_name_or_path, torch_dtype, kwargs)

    @classmethod
    def from_single_file(
        cls,
        path: str | Path,
        *,
        text_encoder: Any = None,
        vae: Any = None,
        tokenizer: Any = None,
        scheduler: Any = None,
        torch_dtype: Dtypes = torch.bfloat16,
        prompt_date: str | None = None,
        memory: str | None = None,
        **unsupported: Any,
    ) -> Self:
        """Return the pipeline of a denoiser's file (.safetensors or .gguf), or of a ComfyUI folder.

        Each component is a path or a loaded object. Those that are left out are searched for in the ComfyUI
        folder around the file, or else in the file's own folder.
        Raises: SettingError, CheckpointError or MemoryNeedError that states the remedy.
        """
        dtypes = unsupported.pop("dtype", torch_dtype)
        if unsupported:
            name, value = next(iter(unsupported.items()))
            fix = "A file's configuration is in its metadata or its shapes, and nothing is downloaded."
            raise SettingError(name, value, "to be left out of from_single_file", fix)
        given = {"text_encoder": text_encoder, "vae": vae, "tokenizer": tokenizer, "scheduler": scheduler}
        if str(path).startswith(("http://", "https://")):
            raise SettingError("path", str(path), "a file on this machine", "Run `hf download` first.")
        if not Path(path).expanduser().is_dir():
            validate_file(Path(path).expanduser())
        if (Path(path).expanduser() / "model_index.json").is_file():
            raise SettingError(
                "path", str(path), "a denoiser's file or a ComfyUI folder", "Use from_pretrained."
            )
        components = {name: value for name, value in given.items() if value is not None}
        return load_pipeline(cls, path, dtypes, components | {"prompt_date": prompt_date, "memory": memory})


@one_at_a_time
def load_pipeline(
    pipeline_class: type, model: ResolvedModel | str | Path, torch_dtype: Dtypes, kwargs: Mapping[str, Any]
) -> Any:
    """Return a pipeline of this class for a resolved model, or for anything that `ResolvedModel.of` takes.

    `kwargs` has components that are loaded, paths of components that replace the model's own, and others.
    Raises: SettingError, CheckpointError or MemoryNeedError that says what to do.
    """
    remaining = dict(kwargs)
    dtypes = torch_dtype if torch_dtype is not None else remaining.pop("dtype", None)
    _drop_hub_settings(remaining, model)
    revision, offline = remaining.pop("revision", None), remaining.pop("local_files_only", None)
    date, memory = remaining.pop("prompt_date", None), remaining.pop("memory", None)
    components = {name: remaining.pop(name) for name in COMPONENT_LOADERS if name in remaining}
    named = {name: value for name, value in components.items() if isinstance(value, (str, Path))}
    passed = {name: value for name, value in components.items() if name not in named}
    for name in {"scheduler", "transformer"} & set(named):
        fix = "A denoiser's file is given as the model itself." if name == "transformer" else ""
        raise SettingError(name, str(named[name]), "a loaded component", fix)
    if isinstance(model, ResolvedModel):
        if named or date is not None:
            name, value = next(iter((named | {"prompt_date": date}).items()))
            raise SettingError(
                name, value, "to be given to ResolvedModel.of, as the model is resolved already"
            )
        source = str(model.folder or model.component_path("transformer"))
    else:
        source = str(model)
        model = ResolvedModel.of(
            model, **named, prompt_date=date, passed=tuple(passed), revision=revision, offline=offline
        )
        model.log_summary()
    weights_variant = remaining.pop("variant", None)
    if weights_variant is not None and model.folder is not None:
        model = replace(model, folder=materialize_variant(model.folder, weights_variant))
    elif weights_variant is not None:
        raise SettingError("variant", weights_variant, "a model's folder", "Name the file itself.")
    if model.folder is not None:
        passed |= {name: None for name in absent_components(model.folder) if name not in components}
    if remaining and (model.folder is None or model.parts):
        name, value = next(iter(remaining.items()))
        raise SettingError(name, value, "to be left out for a model of several files")
    if remaining and memory is not None:
        name, value = next(iter(remaining.items()))
        raise SettingError(name, value, "to be left out beside memory=")
    if remaining and model.folder is not None:
        settings = remaining if date is None else remaining | {"prompt_date": model.prompt_date}
        pipeline = _load_with_diffusers(pipeline_class, model.folder, dtypes, passed, settings)
    else:
        rung = None if memory is None else _choose_rung(model, dtypes, memory)
        loaded = _load_components(model, dtypes, passed, rung)
        if model.parts:
            check_vocabulary(loaded["tokenizer"], loaded["text_encoder"])
        pipeline = pipeline_class(**loaded, **_init_kwargs(pipeline_class, model, loaded))
        apply_rung(pipeline, rung or "resident")
    pipeline.register_to_config(_name_or_path=source)
    return pipeline


HUB_SETTINGS = ("cache_dir", "force_download", "proxies", "token")
"""Settings of diffusers' downloads; its `AutoPipeline` passes them on unset."""


def _drop_hub_settings(settings: dict[str, Any], model: ResolvedModel | str | Path) -> None:
    """Remove the settings of a download; those that are set have an effect on nothing but a download."""
    for name in HUB_SETTINGS:
        value = settings.pop(name, None)
        is_here = isinstance(model, ResolvedModel) or Path(model).expanduser().exists()
        if value and not is_here:
            fix = "Set HF_HUB_CACHE, HF_TOKEN or HTTPS_PROXY in the environment instead."
            raise SettingError(name, "given", "to be left out", fix)


def component_dtype(component: str, dtypes: Dtypes) -> torch.dtype | None:
    """Return the dtype of a component: the one for all, its own, or the "default"; None keeps the stored one.

    Raises: SettingError for anything that is not a dtype.
    """
    chosen = dtypes.get(component, dtypes.get("default")) if isinstance(dtypes, Mapping) else dtypes
    if chosen is not None and not isinstance(chosen, torch.dtype):
        raise SettingError("torch_dtype", chosen, "a torch.dtype, or one by component name")
    return chosen


def _choose_rung(model: ResolvedModel, dtypes: Dtypes, memory: str) -> RungName:
    dtype = component_dtype("transformer", dtypes) or torch.bfloat16
    return resolve_rung(model, dtype, memory).name


def _load_components(
    model: ResolvedModel, dtypes: Dtypes, passed_components: Mapping[str, Any], rung: RungName | None
) -> dict[str, Any]:
    kept: dict[str, dict[str, Any]] = {}
    if rung is not None:
        # What is read block by block stays as it is stored: a cast copy would be in memory as a whole.
        kept["transformer"] = {"keep_stored": rung in STREAMED_RUNGS}
        kept["text_encoder"] = {"keep_stored": rung != "resident", "device": "cpu"}
    return {
        name: passed_components[name]
        if name in passed_components
        else load(model, component_dtype(name, dtypes), **kept.get(name, {}))
        for name, load in COMPONENT_LOADERS.items()
    }


def _init_kwargs(
    pipeline_class: type, model: ResolvedModel, loaded: Mapping[str, Any]
) -> dict[str, Any]:
    known = set(inspect.signature(pipeline_class).parameters) - set(COMPONENT_LOADERS)
    settings = model.index | {"prompt_date": model.prompt_date}
    if loaded["transformer"] is None and settings.get("selected_layer_index") is None:
        settings["selected_layer_index"] = model.configs.get("transformer", {}).get("selected_layer_index")
    if model.folder is None:
        settings["lens_variant"] = model.variant  # the pipeline cannot tell it from a file's name
    return {name: value for name, value in settings.items() if name in known}


def check_vocabulary(tokenizer: Any, text_encoder: Any) -> None:
    """Raise a CheckpointError for a tokenizer with ids that the text encoder does not have."""
    if tokenizer is None or text_encoder is None:
        return
    largest, size = max(tokenizer.get_vocab().values()), text_encoder.config.vocab_size
    if largest >= size:
        raise CheckpointError(
            f"The tokenizer is another model's: its largest id is {largest}, and the text encoder has {size} "
            "tokens. Name the text encoder's own with --tokenizer (tokenizer= in Python)."
        )


def _load_with_diffusers(
    pipeline_class: Any, folder: Path, dtypes: Dtypes, passed: dict[str, Any], settings: dict[str, Any]
) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    check_folder(folder, passed)
    whole, dtype = materialize_shared(folder), dict(dtypes) if isinstance(dtypes, Mapping) else dtypes
    settings = settings | passed | {"dtype": dtype}
    return DiffusionPipeline.from_pretrained.__func__(pipeline_class, whole, **settings)  # type: ignore[attr-defined]


def load_scheduler_of(model: ResolvedModel) -> Any:
    """Return a model's scheduler, the released one for a model of files; sigmas do not come from it."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    if model.folder is None:
        return FlowMatchEulerDiscreteScheduler.from_config(RELEASED_SCHEDULER)
    return FlowMatchEulerDiscreteScheduler.from_pretrained(component_folder(model.folder, "scheduler"))


def load_vae_of(model: ResolvedModel, dtype: torch.dtype | None = None) -> Any:
    """Return a model's VAE; None keeps the stored dtype."""
    from lens.models.checkpoints.vae import load_vae

    return load_vae(_source(model, "vae"), dtype)


def load_text_encoder_of(
    model: ResolvedModel,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
    keep_stored: bool = False,
) -> Any:
    """Return a model's text encoder; None is the stored dtype of a folder, and bfloat16 for a file."""
    from lens.models.checkpoints.text_encoder import load_text_encoder

    path = _source(model, "text_encoder")
    stored: Any = torch.bfloat16 if path.is_file() else "auto"
    return load_text_encoder(path, dtype or stored, device=device, keep_stored=keep_stored)


def load_tokenizer_of(model: ResolvedModel) -> Any:
    """Return a model's tokenizer."""
    from lens.models.checkpoints.components.tokenizer import load_tokenizer

    return load_tokenizer(model.component_path("tokenizer"))


def load_denoiser_of(
    model: ResolvedModel, dtype: torch.dtype | None = None, *, keep_stored: bool = False
) -> Any:
    """Return a model's denoiser; None keeps the stored dtype, which is float32 for quantized weights."""
    from lens.models.checkpoints.single_file import load_denoiser

    return load_denoiser(_source(model, "transformer"), dtype, keep_stored=keep_stored)


def _source(model: ResolvedModel, component: str) -> Path:
    """Return what a reader of a component is given: its own file or folder, or else the model's folder."""
    if model.folder is not None and component not in model.parts:
        return model.folder
    return model.component_path(component)


COMPONENT_LOADERS: dict[str, Callable[..., Any]] = {
    "scheduler": lambda model, _: load_scheduler_of(model),
    "vae": load_vae_of,
    "text_encoder": load_text_encoder_of,
    "tokenizer": lambda model, _: load_tokenizer_of(model),
    "transformer": load_denoiser_of,
}
