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
        name = str(model.folder)
    else:
        name = str(model)
        model = ResolvedModel.of(model, revision=revision, offline=offline)
    passed_components = {name: remaining.pop(name) for name in COMPONENT_LOADERS if name in remaining}
    if remaining:
        pipeline = _load_with_diffusers(pipeline_class, model.folder, dtypes, passed_components | remaining)
    else:
        pipeline = pipeline_class(
            **_load_components(model.folder, dtypes, passed_components), **_init_kwargs(pipeline_class, model)
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


def _load_components(folder: Path, dtypes: Dtypes, passed_components: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: passed_components[name]
        if name in passed_components
        else load(folder, component_dtype(name, dtypes))
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


def _load_scheduler(folder: Path, _: torch.dtype | None) -> Any:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler.from_pretrained(component_folder(folder, "scheduler"))


def _load_vae(folder: Path, dtype: torch.dtype | None) -> Any:
    from lens.models.checkpoints.vae import load_vae

    return load_vae(folder, dtype)


def _load_text_encoder(folder: Path, dtype: torch.dtype | None) -> Any:
    from lens.models.checkpoints.text_encoder import load_text_encoder

    return load_text_encoder(folder, dtype or "auto")  # type: ignore[arg-type]


def _load_tokenizer(folder: Path, _: torch.dtype | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(component_folder(folder, "tokenizer"))


def _load_transformer(folder: Path, dtype: torch.dtype | None) -> Any:
    from lens.models.checkpoints.single_file import load_denoiser

    return load_denoiser(folder, dtype)


COMPONENT_LOADERS: dict[str, Callable[[Path, torch.dtype | None], Any]] = {
    "scheduler": _load_scheduler,
    "vae": _load_vae,
    "text_encoder": _load_text_encoder,
    "tokenizer": _load_tokenizer,
    "transformer": _load_transformer,
}
