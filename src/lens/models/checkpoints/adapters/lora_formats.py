"""Reading and writing of adapter files of all kinds, in all key styles (PEFT, kohya, LyCORIS, ComfyUI).

Needs only the names and shapes of a denoiser's weights. Every key of a file is used, or refused by name.
Letters: O outputs, I inputs.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.adapters.assembly import assemble
from lens.models.checkpoints.adapters.keys import LayerNames, is_of_text_encoder, parse_key, unsupported_kind
from lens.models.checkpoints.adapters.rotation import RotationWeights
from lens.models.checkpoints.adapters.rotation_assembly import rotation_tensors
from lens.models.checkpoints.adapters.sources import PEFT_LORA_FILE, PEFT_SETTINGS_FILE, file_in
from lens.models.checkpoints.adapters.weights import (
    Adapter,
    DifferenceWeights,
    GLoRAWeights,
    IncompleteError,
    LoHaWeights,
    LoKrWeights,
    LoraWeights,
)
from lens.models.checkpoints.detect import detect_kind
from lens.models.checkpoints.reader import (
    LazyStateDict,
    LazyTensor,
    format_names,
    open_safetensors,
    read_json,
)

logger = logging.getLogger(__name__)

SUPPORTED_KINDS = (
    "LoRA, DoRA, LoHa, LoKr, GLoRA, OFT, BOFT and differences of whole weights (.diff, .diff_b, .set_weight)"
)
PEFT_TYPES = ("LORA", "LOHA", "LOKR", "OFT", "BOFT")

UNSUPPORTED_SETTINGS = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "monteclora_config",
    "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
"""Settings of PEFT by which the weights mean something else than in a plain LoRA."""
STARTS_THAT_CHANGE_THE_MODEL = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Values of `init_lora_weights` for which PEFT changes the model's own weights too."""

STYLES = {
    "peft": "PEFT names without prefix, for diffusers' transformer.load_lora_adapter(prefix=None) and Lens",
    "transformer": "PEFT names with the prefix `transformer.`, for diffusers' pipelines",
    "base_model": "PEFT names with the prefix `base_model.model.`, for PEFT",
    "diffusion_model": "PEFT names with the prefix `diffusion_model.`, with alphas",
    "kohya": "names joined by underscores with the prefix `lora_unet_`, with alphas",
}
_PREFIX_OF_STYLE = {"peft": "", "transformer": "transformer.", "base_model": "base_model.model.",
                    "diffusion_model": "diffusion_model."}  # fmt: skip


class _StoredAdapter(NamedTuple):
    """The tensors of a file by layer and part, and the keys that cannot be used."""

    parts: dict[str, dict[str, LazyTensor]]
    unmatched: list[str]
    unsupported: dict[str, list[str]]
    """Keys by kind of adapter."""
    repeated: list[str]
    adapters: set[str]
    """Names of adapters in keys, as in `lora_A.NAME.weight`."""
    of_text_encoder: list[str]


def read_adapter(
    source: str | Path | Mapping[str, Tensor],
    layers: Mapping[str, tuple[int, ...]],
    *,
    check_shapes: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Adapter:
    """Return the weights of an adapter by layer.

    `source` is a .safetensors file, a folder saved by PEFT or diffusers, or a state dict. `layers` gives the
    shapes of weights by layer, (O, I) or that of a norm, and of biases by the names of their parameters.
    `settings` are those of PEFT, for a source that has none of its own.
    Raises: CheckpointError that lists the first ten keys without a layer, of an unsupported kind,
        incomplete or mis-shaped.
    """
    if isinstance(source, Mapping):
        path, stored, own_settings = Path("The state dict"), _state_dict_in_memory(source), {}
    else:
        path = Path(source)
        file, own_settings = _file_and_settings(path)
        stored = open_safetensors(file)
    settings = own_settings or _embedded_settings(stored.metadata) or settings or {}
    _check_settings(path, settings)
    found = _parts_by_module(stored, layers)
    adapter: Adapter = {}
    incomplete, misfits = [], []
    for module, parts in found.parts.items():
        try:
            values = {name: _read_part(module, name, tensor) for name, tensor in parts.items()}
            layer = layers[module] if check_shapes else None
            weights = assemble(module, values, settings, stored.metadata, layer)
        except IncompleteError as error:
            incomplete.append(str(error))
            continue
        for target, part in weights.items():
            if target not in layers:
                misfits.append(f"{module} has no bias, but the file has one for it")
            elif check_shapes and part.shape != tuple(layers[target]):
                misfits.append(f"{target} is for {part.shape}, the layer is {tuple(layers[target])}")
        adapter |= weights
    problems = [
        *(format_names(keys, f"of the kind {kind}, which is not supported")
          for kind, keys in found.unsupported.items()),
        format_names(found.unmatched, "keys without a layer"),
        format_names(found.repeated, "given twice"),
        "" if found.unsupported else format_names(incomplete, "incomplete"),
        format_names(misfits, "mis-shaped"),
    ]  # fmt: skip
    if len(found.adapters) > 1:
        names = ", ".join(sorted(found.adapters))
        problems.insert(
            0, f"it holds {len(found.adapters)} adapters ({names}); save each to a file of its own"
        )
    if any(problems):
        kind = detect_kind(stored.tensors)
        guess = f" It is probably {kind}." if kind else ""
        if found.unsupported:
            guess = f" Supported are {SUPPORTED_KINDS}."
        raise CheckpointError(
            f"{path} does not fit this denoiser: {'; '.join(filter(None, problems))}.{guess}"
        )
    of_text_encoder = format_names(found.of_text_encoder, "keys of a text encoder")
    if not adapter:
        only = of_text_encoder and f", only {of_text_encoder}"
        raise CheckpointError(f"{path} has no adapter weights{only}.")
    if of_text_encoder:
        logger.warning("%s: %s are not used, as Lens uses its text encoder unchanged.", path, of_text_encoder)
    if settings.get("use_dora") and not any(part.magnitude is not None for part in adapter.values()):
        raise CheckpointError(
            f"{path} is a DoRA by its settings, but it has no magnitudes. Save it again with PEFT."
        )
    return adapter


def read_state_dict(source: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, folder or state dict as they are, and PEFT's settings of them."""
    if isinstance(source, Mapping):
        _check_tensors(source)
        return dict(source), {}
    file, settings = _file_and_settings(Path(source))
    stored = open_safetensors(file)
    tensors = {name: tensor.read().clone() for name, tensor in stored.tensors.items()}
    return tensors, settings or _embedded_settings(stored.metadata)


def _file_and_settings(path: Path) -> tuple[Path, dict[str, Any]]:
    file = file_in(path) if path.is_dir() else path
    settings = file.parent / PEFT_SETTINGS_FILE
    has_settings = (path.is_dir() or file.name == PEFT_LORA_FILE) and settings.is_file()
    return file, read_json(settings) if has_settings else {}


def _state_dict_in_memory(tensors: Mapping[str, Tensor]) -> LazyStateDict:
    def entry(tensor: Tensor) -> LazyTensor:
        return LazyTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.detach)

    _check_tensors(tensors)
    return LazyStateDict({name: entry(tensor) for name, tensor in tensors.items()}, {})


def _check_tensors(state_dict: Mapping[Any, Any]) -> None:
    """Raise CheckpointError for a state dict that holds something else than tensors under names."""
    for name, value in state_dict.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            problem = f"The state dict has {type(value).__name__} under {name!r}"
            raise CheckpointError(f"{problem}, but it needs names, each with a tensor.")


def _embedded_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the PEFT settings that diffusers writes into a file, without the prefix of the component."""
    try:
        values = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {key.removeprefix("transformer."): value for key, value in values.items()}


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind is not None and kind not in PEFT_TYPES:
        raise CheckpointError(
            f"{path} is an adapter of the kind {kind}, which is not supported. "
            f"Supported are {SUPPORTED_KINDS}."
        )
    odd = [name for name in UNSUPPORTED_SETTINGS if settings.get(name)]
    start = str(settings.get("init_lora_weights", "")).lower()
    if start.startswith(STARTS_THAT_CHANGE_THE_MODEL):
        odd.append(f"init_lora_weights={start}")
    if odd:
        raise CheckpointError(
            f"{path} has {' and '.join(odd)}, which Lens cannot apply: the file does not hold its whole "
            "effect. Convert it to a plain LoRA with PEFT."
        )


def _parts_by_module(stored: LazyStateDict, layers: Mapping[str, tuple[int, ...]]) -> _StoredAdapter:
    names = LayerNames(layers)
    found = _StoredAdapter({}, [], {}, [], set(), [])
    for name, tensor in stored.tensors.items():
        key = parse_key(name)
        module = names.find(key.module) if key else None
        kind = unsupported_kind(name)
        if module is None and is_of_text_encoder(name):
            found.of_text_encoder.append(name)
        elif kind:
            found.unsupported.setdefault(kind, []).append(name)
        elif key is None or module is None:
            found.unmatched.append(name)
        else:
            parts = found.parts.setdefault(module, {})
            if key.part in parts:
                found.repeated.append(f"{key.part} of {module} in {name}")
            parts[key.part] = tensor
            found.adapters.update([key.adapter] if key.adapter else [])
    return found


def _read_part(module: str, name: str, tensor: LazyTensor) -> Tensor:
    value = tensor.read()
    if name != "alpha" and not value.is_floating_point():
        raise IncompleteError(f"{module} has a {name} of dtype {tensor.dtype}")
    # Factors are small: a copy does not change if the file is written anew while the model is in use.
    return value if name in ("diff", "set_weight") else value.clone()


def adapter_tensors(adapter: Adapter, style: str) -> dict[str, Tensor]:
    """Return the tensors of an adapter under the names of a style of STYLES.

    In styles without alphas the up matrix includes the scale, so that every reader computes the same.
    Raises: SettingError for an unknown style, or for one that cannot hold the adapter.
    """
    if style not in STYLES:
        raise SettingError("style", style, f"one of {', '.join(STYLES)}")
    tensors: dict[str, Tensor] = {}
    for target, part in adapter.items():
        is_bias = target.endswith(".bias")
        module = target.removesuffix(".bias")
        prefix = "lora_unet_" if isinstance(part, LoraWeights | DifferenceWeights) else "lycoris_"
        joined = prefix + module.replace(".", "_")
        front = joined if style == "kohya" else _PREFIX_OF_STYLE[style] + module
        if isinstance(part, DifferenceWeights):
            name = "diff_b" if is_bias else "set_weight" if part.replaces else "diff"
            tensors[f"{front}.{name}"] = part.value
        elif isinstance(part, LoKrWeights):
            tensors |= {f"{front}.lokr_w1": _scale(part.w1, part.scale), f"{front}.lokr_w2": part.w2}
        elif isinstance(part, LoHaWeights):
            tensors |= {f"{front}.hada_w1_a": _scale(part.w1_a, part.scale), f"{front}.hada_w1_b": part.w1_b}
            tensors |= {f"{front}.hada_w2_a": part.w2_a, f"{front}.hada_w2_b": part.w2_b}
        elif isinstance(part, GLoRAWeights):
            a1, b1 = _scale(part.a1, part.scale), _scale(part.b1, part.scale)
            named = {"a1": a1, "a2": part.a2, "b1": b1, "b2": part.b2}
            tensors |= {f"{front}.{name}.weight": value for name, value in named.items()}
        elif isinstance(part, RotationWeights):
            tensors |= rotation_tensors(part, front, style)
        else:
            tensors |= _lora_tensors(part, front, style)
        if part.magnitude is not None:
            tensors |= _magnitude_tensor(part.magnitude, front, style, is_lora=isinstance(part, LoraWeights))
    return tensors


def _lora_tensors(part: LoraWeights, front: str, style: str) -> dict[str, Tensor]:
    has_alpha = style in ("kohya", "diffusion_model")
    down_name, up_name = ("lora_down", "lora_up") if style == "kohya" else ("lora_A", "lora_B")
    up = part.up if has_alpha else _scale(part.up, part.scale)
    tensors = {f"{front}.{down_name}.weight": part.down, f"{front}.{up_name}.weight": up}
    return tensors | ({f"{front}.alpha": torch.tensor(part.alpha)} if has_alpha else {})


def _magnitude_tensor(magnitude: Tensor, front: str, style: str, is_lora: bool) -> dict[str, Tensor]:
    if not is_lora or style in ("kohya", "diffusion_model"):
        return {f"{front}.dora_scale": magnitude}
    if magnitude.shape[1] != 1:
        needs = "kohya or diffusion_model for a DoRA with a magnitude for each input"
        raise SettingError("style", style, needs, "PEFT has one for each output.")
    return {f"{front}.lora_magnitude_vector": magnitude.flatten()}


def _scale(value: Tensor, scale: float) -> Tensor:
    return value if scale == 1 else (value.float() * scale).to(value.dtype)


def write_adapter(adapter: Adapter, path: str | Path, style: str = "peft") -> Path:
    """Write an adapter to a .safetensors file in a style."""
    from lens.models.checkpoints.writer import write_safetensors

    write_safetensors(Path(path), adapter_tensors(adapter, style), {"format": "pt"})
    return Path(path)
