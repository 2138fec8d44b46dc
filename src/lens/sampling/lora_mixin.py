"""diffusers' LoRA methods on the pipeline; under them are this package's readers of all kinds and key styles.

Methods that are not here are diffusers' own: `disable_lora`, `enable_lora`, `enable_lora_hotswap` and others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from torch import Tensor, nn

from lens.errors import SettingError

Source = str | Path | Mapping[str, Tensor]
"""A file, a folder, a hub id or a state dict."""
COMPONENT = "transformer"


class LoraMixin(LoraBaseMixin):
    """Adapters of the denoiser: load, weigh, switch, fuse, save, unload."""

    _lora_loadable_modules: ClassVar[list[str]] = [COMPONENT]
    transformer_name = COMPONENT
    transformer: Any

    @property
    def _merged_adapters(self) -> set[str]:  # type: ignore[override] - diffusers keeps a copy
        from lens.models.checkpoints.adapters.lora import fused_adapters

        return set() if self.transformer is None else fused_adapters(self.transformer)

    @classmethod
    def lora_state_dict(
        cls,
        pretrained_model_name_or_path_or_dict: Source,
        *,
        return_lora_metadata: bool = False,
        **where: Any,
    ) -> Any:
        """Return the tensors of an adapter under diffusers' names, and with them, if asked for, its metadata.

        Keys of no known layer are returned as they are. The layers are those of the released denoiser.
        """
        from lens.models.checkpoints.adapters.keys import diffusers_key, released_layers
        from lens.models.checkpoints.adapters.lora_formats import read_state_dict

        tensors, settings = read_state_dict(_resolved(pretrained_model_name_or_path_or_dict, where))
        layers = released_layers()
        state_dict = {diffusers_key(key, layers): tensor for key, tensor in tensors.items()}
        metadata = {f"{COMPONENT}.{key}": value for key, value in settings.items()} or None
        return (state_dict, metadata) if return_lora_metadata else state_dict

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Source,
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        weight: float = 1.0,
        **where: Any,
    ) -> str:
        """Load one more adapter of any kind that the command takes; return its name.

        `where` has diffusers' settings: `weight_name`, `subfolder`, `revision`, `token` and others. With
        `hotswap` the adapter takes the place of the loaded one of this name.
        Raises: CheckpointError for a file that does not fit this denoiser; it lists the unmatched keys.
        """
        source = _resolved(pretrained_model_name_or_path_or_dict, where)
        with _without_offloading(self):
            return _load(self.transformer, source, adapter_name, hotswap, weight)

    @classmethod
    def load_lora_into_transformer(
        cls,
        state_dict: Mapping[str, Tensor],
        transformer: Any,
        adapter_name: str | None = None,
        _pipeline: Any = None,
        low_cpu_mem_usage: bool = False,
        hotswap: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Load a state dict into a denoiser; `metadata` are PEFT's settings, as of `lora_state_dict`."""
        settings = {key.removeprefix(f"{COMPONENT}."): value for key, value in (metadata or {}).items()}
        with _without_offloading(_pipeline):
            _load(transformer, state_dict, adapter_name, hotswap, settings=settings)

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        transformer_lora_layers: Mapping[str, nn.Module | Tensor] | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: Any = None,
        safe_serialization: bool = True,
        transformer_lora_adapter_metadata: dict[str, Any] | None = None,
    ) -> None:
        """Write LoRA layers, such as those of PEFT's `get_peft_model_state_dict`, as diffusers does."""
        if not transformer_lora_layers:
            needs = "the state dict of a LoRA, as of get_peft_model_state_dict(pipeline.transformer)"
            raise SettingError("transformer_lora_layers", transformer_lora_layers, needs)
        if not is_main_process:
            return
        cls._save_lora_weights(
            save_directory,  # type: ignore[arg-type]
            {COMPONENT: dict(transformer_lora_layers)},
            {COMPONENT: transformer_lora_adapter_metadata},
            weight_name=weight_name,  # type: ignore[arg-type]
            save_function=save_function,
            safe_serialization=safe_serialization,
        )

    def save_adapter(
        self, save_directory: str | Path, adapter_name: str | None = None, weight_name: str | None = None
    ) -> Path:
        """Write a loaded adapter to a file that diffusers' pipelines and Lens load; return its path.

        The adapter's name is optional if only one is loaded.
        Raises: SettingError for a name that is not loaded, or for a DoRA by columns, which only kohya's names
            hold.
        """
        from lens.models.checkpoints.adapters.lora import save_lora
        from lens.models.checkpoints.adapters.sources import DIFFUSERS_LORA_FILE

        path = Path(save_directory) / (weight_name or DIFFUSERS_LORA_FILE)
        return save_lora(self.transformer, path, "transformer", adapter_name)

    def set_adapters(self, adapter_names: str | Sequence[str], adapter_weights: Any = None) -> None:
        """Activate exactly these adapters, each at its weight (default 1).

        A weight is a number, None or `{"transformer": number}`; a list has one for each name.
        Raises: SettingError for a name that is not loaded, or for weights that do not match the names.
        """
        from lens.models.checkpoints.adapters.lora import set_lora_weights

        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        is_list = isinstance(adapter_weights, Sequence)
        weights = list(adapter_weights) if is_list else [adapter_weights] * len(names)
        if len(weights) != len(names):
            raise SettingError(
                "adapter_weights", adapter_weights, f"one weight, or one for each of {len(names)} names"
            )
        numbers = [_weight(weight) for weight in weights]
        set_lora_weights(self.transformer, dict(zip(names, numbers, strict=True)))

    def get_active_adapters(self) -> list[str]:
        """Return the names of the active adapters."""
        from lens.models.checkpoints.adapters.lora import active_adapters

        return active_adapters(self.transformer)

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Return the names of all loaded adapters, active or not, by component."""
        from lens.models.checkpoints.adapters.lora import adapter_names

        names = adapter_names(self.transformer)
        return {COMPONENT: names} if names else {}

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Unload some adapters.

        Raises: SettingError for a name that is not loaded.
        """
        from lens.models.checkpoints.adapters.lora import delete_adapters

        delete_adapters(self.transformer, _as_list(adapter_names))

    def set_lora_device(self, adapter_names: str | Sequence[str], device: torch.device | str | int) -> None:
        """Move the weights of adapters; those that act must be where the denoiser is.

        Raises: SettingError for a name that is not loaded.
        """
        from lens.models.checkpoints.adapters.lora import move_adapters

        move_adapters(self.transformer, _as_list(adapter_names), device)

    def fuse_lora(
        self,
        components: Sequence[str] = (COMPONENT,),
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
    ) -> None:
        """Merge active adapters into the weights, times `lora_scale`; inference then has no extra cost.

        `safe_fusing` refuses adapters with values that are not finite.
        Raises: SettingError for quantized weights.
        """
        from lens.models.checkpoints.adapters.lora import fuse_loras
        from lens.models.denoiser import apply_lora_scale

        _check_components(components)
        with apply_lora_scale(self.transformer, lora_scale):
            fuse_loras(self.transformer, adapter_names, is_checked=safe_fusing)

    def unfuse_lora(self, components: Sequence[str] = (COMPONENT,)) -> None:
        """Remove fused adapters from the weights, up to rounding."""
        from lens.models.checkpoints.adapters.lora import unfuse_loras

        _check_components(components)
        unfuse_loras(self.transformer)

    def unload_lora_weights(self) -> None:
        """Unload all adapters; the denoiser is as before."""
        from lens.models.checkpoints.adapters.lora import unload_loras

        unload_loras(self.transformer)


def _load(
    denoiser: Any, source: Source, name: str | None, hotswap: bool, weight: float = 1.0, settings: Any = None
) -> str:
    from lens.models.checkpoints.adapters.hotswap import hotswap_adapter
    from lens.models.checkpoints.adapters.lora import adaptable_weights, load_loras
    from lens.models.checkpoints.adapters.lora_formats import read_adapter

    if not hotswap:
        return load_loras(denoiser, [(source, weight)], None if name is None else [name], settings)[0]
    if name is None:
        raise SettingError("adapter_name", name, "the name of the adapter whose place the new one takes")
    adapter = read_adapter(source, adaptable_weights(denoiser), settings=settings)
    hotswap_adapter(denoiser, adapter, name, weight)
    return name


def _resolved(source: Source, where: dict[str, Any]) -> Any:
    """Return the source with a hub id or the name of a file in a folder as a path.

    Raises: SettingError for a setting that diffusers does not have.
    """
    from lens.models.checkpoints.adapters.sources import DOWNLOAD_SETTINGS, resolve_source

    known = ("weight_name", "subfolder", *DOWNLOAD_SETTINGS)
    for name, value in where.items():
        # The last two change nothing here: pickled files are refused, and no weight is made twice.
        if name not in (*known, "use_safetensors", "low_cpu_mem_usage"):
            raise SettingError(name, value, f"to be one of {', '.join(known)}")
    if where.get("use_safetensors") is False:
        raise SettingError("use_safetensors", False, "True", "Pickled files are refused.")
    if isinstance(source, Mapping):
        return source
    return resolve_source(source, **{name: where[name] for name in known if name in where})


def _weight(value: Any) -> float:
    if isinstance(value, Mapping):
        needs = f"the component {COMPONENT!r} alone"
        if set(value) != {COMPONENT}:
            raise SettingError("adapter_weights", dict(value), needs)
        value = value[COMPONENT]
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError("adapter_weights", value, f"a number, None, or {{{COMPONENT!r}: number}}")
    return float(value)


def _as_list(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _check_components(components: Sequence[str]) -> None:
    if list(components) != [COMPONENT]:
        raise SettingError("components", list(components), f"[{COMPONENT!r}], the only one with adapters")


@contextmanager
def _without_offloading(pipeline: Any) -> Iterator[None]:
    """Take diffusers' offloading off while adapters are added, and put it on again."""
    if pipeline is None:
        yield
        return
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading

    by_model, by_layer, by_group = pipeline._optionally_disable_offloading(pipeline)
    try:
        yield
    finally:
        if by_model:
            pipeline.enable_model_cpu_offload()
        elif by_layer:
            pipeline.enable_sequential_cpu_offload()
        elif by_group:
            for component in pipeline.components.values():
                if isinstance(component, nn.Module):
                    _maybe_remove_and_reapply_group_offloading(component)
