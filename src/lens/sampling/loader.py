"""Loader of pipelines: from a model's name or folder to a `LensPipeline`, with strict checks.

Loads the five components directly, which takes a fraction of the time of diffusers' generic loader. Arguments
that only diffusers supports (device maps, its quantisation) go to its loader, after the same strict checks.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lens.errors import SettingError
from lens.models.checkpoints.diffusers_folder import check_folder, component_folder, materialize_shared
from lens.sampling.resolved_model import ResolvedModel

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None

RELEASED_SCHEDULER = {
    "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
    "time_shift_type": "exponential",
}  # fmt: skip


def load_pipeline(
    pipeline_class: type, model: ResolvedModel | str | Path, torch_dtype: Dtypes, settings: Mapping[str, Any]
) -> Any:
    """Return a pipeline of this class for a resolved model, a known name, a folder or a hub id.

    Raises: SettingError, CheckpointError or MemoryNeedError that says what to do.
    """
    remaining = dict(settings)
    dtypes = torch_dtype if torch_dtype is not None else remaining.pop("dtype", None)
    revision, offline = remaining.pop("revision", None), remaining.pop("local_files_only", None)
    if isinstance(model, ResolvedModel):
        name = str(model.folder or model.component_path("transformer"))
    else:
        name = str(model)
        model = ResolvedModel.of(model, revision=revision, offline=offline)
    passed_components = {name: remaining.pop(name) for name in COMPONENT_LOADERS if name in remaining}
    if remaining and (model.folder is None or model.parts):
        name, value = next(iter(remaining.items()))
        raise SettingError(name, value, "to be left out for a model of several files")
    if remaining and model.folder is not None:
        pipeline = _load_with_diffusers(pipeline_class, model.folder, dtypes, passed_components | remaining)
    else:
        pipeline = pipeline_class(
            **_load_components(model, dtypes, passed_components), **_init_kwargs(pipeline_class, model)
        )
    pipeline.register_to_config(_name_or_path=name)
    return pipeline


def component_dtype(component: str, dtypes: Dtypes) -> torch.dtype | None:
    """Return the dtype of a component: the one for all, its own, or the "default"; None keeps the stored one.

    Raises: SettingError for anything that is not a dtype.
    """
    chosen = dtypes.get(component, dtypes.get("default")) if isinstance(dtypes, Mapping) else dtypes
    if chosen is not None and not isinstance(chosen, torch.dtype):
        raise SettingError("torch_dtype", chosen, "a torch.dtype, or one by component name")
    return chosen


def _load_components(
    model: ResolvedModel, dtypes: Dtypes, passed_components: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        name: passed_components[name]
        if name in passed_components
        else load(model, component_dtype(name, dtypes))
        for name, load in COMPONENT_LOADERS.items()
    }


def _init_kwargs(pipeline_class: type, model: ResolvedModel) -> dict[str, Any]:
    known = set(inspect.signature(pipeline_class).parameters) - set(COMPONENT_LOADERS)
    return {name: value for name, value in model.index.items() if name in known}


def _load_with_diffusers(pipeline_class: Any, folder: Path, dtypes: Dtypes, settings: dict[str, Any]) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    check_folder(folder)
    whole, dtype = materialize_shared(folder), dict(dtypes) if isinstance(dtypes, Mapping) else dtypes
    return DiffusionPipeline.from_pretrained.__func__(pipeline_class, whole, dtype=dtype, **settings)  # type: ignore[attr-defined]


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


def load_text_encoder_of(model: ResolvedModel, dtype: torch.dtype | None = None) -> Any:
    """Return a model's text encoder; None is the stored dtype of a folder, and bfloat16 for a file."""
    from lens.models.checkpoints.text_encoder import load_text_encoder

    path = _source(model, "text_encoder")
    stored: Any = torch.bfloat16 if path.is_file() else "auto"
    return load_text_encoder(path, dtype or stored)


def load_tokenizer_of(model: ResolvedModel) -> Any:
    """Return a model's tokenizer."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(model.component_path("tokenizer"))


def load_denoiser_of(model: ResolvedModel, dtype: torch.dtype | None = None) -> Any:
    """Return a model's denoiser; None keeps the stored dtype, which is float32 for quantized weights."""
    from lens.models.checkpoints.single_file import load_denoiser

    return load_denoiser(_source(model, "transformer"), dtype)


def _source(model: ResolvedModel, component: str) -> Path:
    """Return what a reader of a component is given: its own file or folder, or else the model's folder."""
    if model.folder is not None and component not in model.parts:
        return model.folder
    return model.component_path(component)


COMPONENT_LOADERS: dict[str, Callable[[ResolvedModel, torch.dtype | None], Any]] = {
    "scheduler": lambda model, _: load_scheduler_of(model),
    "vae": load_vae_of,
    "text_encoder": load_text_encoder_of,
    "tokenizer": lambda model, _: load_tokenizer_of(model),
    "transformer": load_denoiser_of,
}
