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
from lens.models.checkpoints.diffusers_folder import check_folder, component_folder, whole_folder
from lens.models.checkpoints.reader import read_json
from lens.models.checkpoints.registry import resolve_model

Dtypes = torch.dtype | Mapping[str, torch.dtype] | None


def load_pipeline(
    kind: type, name_or_folder: str | Path, torch_dtype: Dtypes, settings: Mapping[str, Any]
) -> Any:
    """Return a pipeline of this class for a known name, a folder or a hub id.

    Raises: SettingError, CheckpointError or MemoryNeedError that says what to do.
    """
    others = dict(settings)
    dtypes = torch_dtype if torch_dtype is not None else others.pop("dtype", None)
    folder = resolve_model(
        name_or_folder, revision=others.pop("revision", None), offline=others.pop("local_files_only", None)
    )
    ready = {name: others.pop(name) for name in LOADERS if name in others}
    if others:
        pipeline = _load_by_diffusers(kind, folder, dtypes, ready | others)
    else:
        pipeline = kind(**_components(folder, dtypes, ready), **_own_settings(kind, folder))
    pipeline.register_to_config(_name_or_path=str(name_or_folder))
    return pipeline


def dtype_of(component: str, dtypes: Dtypes) -> torch.dtype | None:
    """Return the dtype asked for a component: the one for all, its own, or the "default"; None asks for none.

    Raises: SettingError for what is no dtype.
    """
    chosen = dtypes.get(component, dtypes.get("default")) if isinstance(dtypes, Mapping) else dtypes
    if chosen is not None and not isinstance(chosen, torch.dtype):
        raise SettingError("torch_dtype", chosen, "a torch.dtype, or one by component name")
    return chosen


def _components(folder: Path, dtypes: Dtypes, ready: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: ready[name] if name in ready else load(folder, dtype_of(name, dtypes))
        for name, load in LOADERS.items()
    }


def _own_settings(kind: type, folder: Path) -> dict[str, Any]:
    known = set(inspect.signature(kind).parameters) - set(LOADERS)
    return {name: value for name, value in read_json(folder / "model_index.json").items() if name in known}


def _load_by_diffusers(kind: Any, folder: Path, dtypes: Dtypes, settings: dict[str, Any]) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    check_folder(folder)
    whole, dtype = whole_folder(folder), dict(dtypes) if isinstance(dtypes, Mapping) else dtypes
    return DiffusionPipeline.from_pretrained.__func__(kind, whole, dtype=dtype, **settings)  # type: ignore[attr-defined]


def _scheduler(folder: Path, _: torch.dtype | None) -> Any:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler.from_pretrained(component_folder(folder, "scheduler"))


def _vae(folder: Path, dtype: torch.dtype | None) -> Any:
    from lens.models.checkpoints.vae import load_vae

    return load_vae(folder, dtype)


def _text_encoder(folder: Path, dtype: torch.dtype | None) -> Any:
    from lens.models.checkpoints.text_encoder import load_text_encoder

    return load_text_encoder(folder, dtype or "auto")  # type: ignore[arg-type]


def _tokenizer(folder: Path, _: torch.dtype | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(component_folder(folder, "tokenizer"))


def _transformer(folder: Path, dtype: torch.dtype | None) -> Any:
    from lens.models.checkpoints.single_file import load_denoiser

    return load_denoiser(folder, dtype)


LOADERS: dict[str, Callable[[Path, torch.dtype | None], Any]] = {
    "scheduler": _scheduler,
    "vae": _vae,
    "text_encoder": _text_encoder,
    "tokenizer": _tokenizer,
    "transformer": _transformer,
}
