"""Reading and writing of adapter files in all key styles: LoRA (PEFT, kohya) and LoKr.

Needs only the names of a denoiser's linear layers. QKV is fused in Lens, so nothing is split. A key without a
layer is an error. Spec: section 6.
Letters: O outputs, I inputs, R rank; a Kronecker product of (O1, I1) and (O2, I2) has O = O1 O2, I = I1 I2.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.detect import DENOISER_PREFIXES, detect_kind
from lens.models.checkpoints.reader import LazyStateDict, LazyTensor, format_names, open_safetensors

PEFT_LORA_FILE, DIFFUSERS_LORA_FILE = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"
DOTTED_PREFIXES = ("base_model.model.", *DENOISER_PREFIXES)
UNDERSCORE_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")

_PART = re.compile(
    r"^(?P<module>.+?)\.(?:(?P<low>lora_A|lora_B|lora_down|lora_up)(?:\.(?!weight$)\w+)?(?:\.weight)?"
    r"|(?P<kron>lokr_w[12](?:_[ab])?)(?:\.weight)?|(?P<alpha>alpha))$"
)
_DOWN_NAMES, _UP_NAMES = ("lora_A", "lora_down"), ("lora_B", "lora_up")

STYLES = {
    "peft": "PEFT names without prefix, for diffusers' transformer.load_lora_adapter(prefix=None) and Lens",
    "transformer": "PEFT names with the prefix `transformer.`, for diffusers' pipelines",
    "base_model": "PEFT names with the prefix `base_model.model.`, for PEFT",
    "diffusion_model": "PEFT names with the prefix `diffusion_model.`, with alphas",
    "kohya": "names joined by underscores with the prefix `lora_unet_`, with alphas",
}
_PREFIX_OF_STYLE = {"peft": "", "transformer": "transformer.", "base_model": "base_model.model.",
                    "diffusion_model": "diffusion_model."}  # fmt: skip


class LoraWeights(NamedTuple):
    """The weights of a LoRA for one layer, which add alpha / R * up @ down to it."""

    down: Tensor
    """(R, I)"""
    up: Tensor
    """(O, R)"""
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / len(self.down)

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> Tensor:
        """Return the matrix that is added to the weight, (O, I)."""
        return self.scale * self.up.float() @ self.down.float()


class LoKrWeights(NamedTuple):
    """The weights of a LoKr for one layer, which add scale * kron(w1, w2) to it."""

    w1: Tensor
    """(O1, I1)"""
    w2: Tensor
    """(O2, I2)"""
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.w1.shape[0] * self.w2.shape[0], self.w1.shape[1] * self.w2.shape[1]

    def delta(self) -> Tensor:
        """Return the matrix that is added to the weight, (O, I)."""
        return self.scale * torch.kron(self.w1.float(), self.w2.float())


Adapter = dict[str, LoraWeights | LoKrWeights]


def read_adapter(
    path: str | Path, linears: Mapping[str, tuple[int, int]], *, check_shapes: bool = True
) -> Adapter:
    """Return the weights of an adapter by layer.

    `path` is a .safetensors file, or a folder saved by PEFT or diffusers. `linears` gives (O, I) by name.
    Raises: CheckpointError that lists the first ten keys without a layer, incomplete or mis-shaped.
    """
    path = Path(path)
    file, settings = _file_and_settings(path)
    stored = open_safetensors(file)
    settings = settings or _embedded_settings(stored.metadata)
    parts, unmatched = _parts_by_module(stored, linears)
    adapter: Adapter = {}
    incomplete, misfits = [], []
    for module, found in parts.items():
        weights = _assemble(module, found, settings, stored.metadata)
        if weights is None:
            incomplete.append(f"{module} has only {' and '.join(sorted(found))}")
        elif check_shapes and weights.shape != tuple(linears[module]):
            misfits.append(f"{module} is for {weights.shape}, the layer is {tuple(linears[module])}")
        else:
            adapter[module] = weights
    problems = [
        format_names(unmatched, "keys without a layer"),
        format_names(incomplete, "incomplete"),
        format_names(misfits, "mis-shaped"),
    ]
    if any(problems):
        kind = detect_kind(stored.tensors)
        guess = f" It is probably {kind}." if kind else ""
        found = "; ".join(filter(None, problems))
        raise CheckpointError(f"{path} does not fit this denoiser: {found}.{guess}")
    if not adapter:
        raise CheckpointError(f"{path} has no adapter weights.")
    return adapter


def _file_and_settings(path: Path) -> tuple[Path, dict[str, Any]]:
    if not path.is_dir():
        return path, {}
    for name in (PEFT_LORA_FILE, DIFFUSERS_LORA_FILE):
        if (path / name).exists():
            settings = path / "adapter_config.json"
            return path / name, json.loads(settings.read_text()) if settings.is_file() else {}
    raise CheckpointError(
        f"{path} has neither {PEFT_LORA_FILE} nor {DIFFUSERS_LORA_FILE}. "
        "Give the .safetensors file itself."
    )


def _embedded_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the PEFT settings that diffusers writes into a file, without the prefix of the component."""
    try:
        values = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return {key.removeprefix("transformer."): value for key, value in values.items()}


def _parts_by_module(
    stored: LazyStateDict, linears: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, dict[str, LazyTensor]], list[str]]:
    joined = {name.replace(".", "_"): name for name in linears}
    parts: dict[str, dict[str, LazyTensor]] = {}
    unmatched = []
    for key, tensor in stored.tensors.items():
        match = _PART.match(key)
        module = _module_of(match["module"], linears, joined) if match else None
        if match is None or module is None:
            unmatched.append(key)
            continue
        low = match["low"]
        part = ("down" if low in _DOWN_NAMES else "up") if low else match["kron"] or "alpha"
        parts.setdefault(module, {})[part] = tensor
    return parts, unmatched


def _module_of(text: str, linears: Mapping[str, tuple[int, int]], joined: Mapping[str, str]) -> str | None:
    """Return the layer of a key's module part; for kohya's underscores, the layers are compared joined."""
    if text in linears:
        return text
    for prefix in UNDERSCORE_PREFIXES:
        if text.startswith(prefix):
            return joined.get(text.removeprefix(prefix))
    for prefix in DOTTED_PREFIXES:
        if text.startswith(prefix):
            return _module_of(text.removeprefix(prefix), linears, joined)
    return None


def _assemble(
    module: str, parts: dict[str, LazyTensor], settings: Mapping[str, Any], metadata: Mapping[str, str]
) -> LoraWeights | LoKrWeights | None:
    values = {name: tensor.read() for name, tensor in parts.items()}
    alpha = float(values.pop("alpha")) if "alpha" in values else None
    if set(values) == {"down", "up"}:
        rank = len(values["down"])
        if values["up"].ndim != 2 or values["up"].shape[1] != rank:
            return None
        peft_scale = _peft_scale(settings, module, "lora_alpha", default_rank=rank)
        chosen = peft_scale * rank if alpha is None and peft_scale is not None else alpha
        return LoraWeights(values["down"], values["up"], float(rank if chosen is None else chosen))
    first, second = _pop_factor(values, "lokr_w1"), _pop_factor(values, "lokr_w2")
    if values or first is None or second is None:
        return None
    ranks = [rank for _, rank in (first, second) if rank is not None]
    scale = _peft_scale(settings, module, "alpha", default_rank=None) if alpha is None else None
    if scale is None:
        # Where both factors are whole matrices there is no rank, and alpha is without effect.
        alpha = alpha if alpha is not None else _alpha_in(metadata)
        scale = alpha / ranks[0] if ranks and alpha is not None else 1.0
    return LoKrWeights(first[0], second[0], scale)


def _pop_factor(values: dict[str, Tensor], name: str) -> tuple[Tensor, int | None] | None:
    """Remove one factor of a LoKr from `values`; return it and its rank, None if it is a whole matrix."""
    if name in values:
        return values.pop(name), None
    if f"{name}_a" in values and f"{name}_b" in values:
        a, b = values.pop(f"{name}_a"), values.pop(f"{name}_b")
        return (a.float() @ b.float()).to(a.dtype), len(b)
    return None


def _peft_scale(
    settings: Mapping[str, Any], module: str, alpha_name: str, default_rank: int | None
) -> float | None:
    """Return alpha / rank of one layer by PEFT's settings; None if they do not have it."""
    alpha = _value_for_module(settings.get("alpha_pattern"), module, settings.get(alpha_name))
    rank = default_rank or _value_for_module(settings.get("rank_pattern"), module, settings.get("r"))
    if alpha is None or not rank:
        return None
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _value_for_module(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _alpha_in(metadata: Mapping[str, str]) -> float | None:
    for key in ("ss_network_alpha", "network_alpha", "lokr_alpha", "alpha"):
        try:
            return float(metadata[key])
        except (KeyError, ValueError):
            continue
    return None


def adapter_tensors(adapter: Adapter, style: str) -> dict[str, Tensor]:
    """Return the tensors of an adapter under the names of a style of STYLES.

    In styles without alphas the up matrix includes the scale, so that every reader computes the same.
    Raises: SettingError for an unknown style.
    """
    if style not in STYLES:
        raise SettingError("style", style, f"one of {', '.join(STYLES)}")
    tensors: dict[str, Tensor] = {}
    for module, part in adapter.items():
        if isinstance(part, LoKrWeights):
            joined = f"lycoris_{module.replace('.', '_')}"
            front = joined if style == "kohya" else _PREFIX_OF_STYLE[style] + module
            tensors |= {f"{front}.lokr_w1": _scale(part.w1, part.scale), f"{front}.lokr_w2": part.w2}
        elif style == "kohya":
            front = f"lora_unet_{module.replace('.', '_')}"
            tensors |= {f"{front}.lora_down.weight": part.down, f"{front}.lora_up.weight": part.up}
            tensors[f"{front}.alpha"] = torch.tensor(part.alpha)
        else:
            front = _PREFIX_OF_STYLE[style] + module
            has_alpha = style == "diffusion_model"
            up = part.up if has_alpha else _scale(part.up, part.scale)
            tensors |= {f"{front}.lora_A.weight": part.down, f"{front}.lora_B.weight": up}
            if has_alpha:
                tensors[f"{front}.alpha"] = torch.tensor(part.alpha)
    return tensors


def _scale(value: Tensor, scale: float) -> Tensor:
    return value if scale == 1 else (value.float() * scale).to(value.dtype)


def write_adapter(adapter: Adapter, path: str | Path, style: str = "peft") -> Path:
    """Write an adapter to a .safetensors file in a style."""
    from lens.models.checkpoints.writer import write_safetensors

    write_safetensors(Path(path), adapter_tensors(adapter, style), {"format": "pt"})
    return Path(path)
