"""From a model's name to a pipeline: strict, and without diffusers' generic machinery where it is not needed.

A folder holds five components of known classes; loading them directly takes a fraction of the time. Requests
with settings that only diffusers understands (device maps, its quantisation) go to its own loader, after the
same strict check of every file.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lens.errors import SettingError
from lens.models.checkpoints.diffusers_folder import check_folder, component_folder, materialize_shared
from lens.models.checkpoints.reader import read_json
from lens.models.checkpoints.registry import resolve_model

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None


def load_pipeline(
    pipeline_class: type, name_or_folder: str | Path, torch_dtype: Dtypes, settings: Mapping[str, Any]
) -> Any:
    """Return a pipeline of this class for a known name, a folder or a hub id.

    Raises: SettingError, CheckpointError or MemoryNeedError that says what to do.
    """
    remaining = dict(settings)
    dtypes = torch_dtype if torch_dtype is not None else remaining.pop("dtype", None)
    folder = resolve_model(
        name_or_folder,
        revision=remaining.pop("revision", None),
        offline=remaining.pop("local_files_only", None),
    )
    passed_components = {name: remaining.pop(name) for name in COMPONENT_LOADERS if name in remaining}
    if remaining:
        pipeline = _load_with_diffusers(pipeline_class, folder, dtypes, passed_components | remaining)
    else:
        pipeline = pipeline_class(
            **_load_components(folder, dtypes, passed_components), **_init_kwargs(pipeline_class, folder)
        )
    pipeline.register_to_config(_name_or_path=str(name_or_folder))
    return pipeline


def component_dtype(component: str, dtypes: Dtypes) -> torch.dtype | None:
    """Return the dtype asked for a component: the one for all, its own, or the "default"; None asks for none.

    Raises: SettingError for what is no dtype.
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


def _init_kwargs(pipeline_class: type, folder: Path) -> dict[str, Any]:
    known = set(inspect.signature(pipeline_class).parameters) - set(COMPONENT_LOADERS)
    return {name: value for name, value in read_json(folder / "model_index.json").items() if name in known}


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
