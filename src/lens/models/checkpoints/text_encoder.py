"""Loading of GPT-OSS text encoders: folders, quantized files (NVFP4) and GGUF.

Names and axes are converted to transformers' layout, where experts are (E, inputs, outputs) and the outputs
of gate and up alternate. Text features need no LM head; without one, `generate` raises an error.
Spec: section 6.
Letters: E experts, O outputs, I inputs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lens.errors import CheckpointError, LensError, SettingError
from lens.models.checkpoints.detect import detect_kind
from lens.models.checkpoints.diffusers_folder import (
    COMPONENT_LABELS,
    check_component,
    resolve_component_folder,
)
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
from lens.models.checkpoints.module_loader import init_empty, load_state_dict_strict
from lens.models.checkpoints.quantized_layers import dequantize_layers, open_weights_file, quantized_layers
from lens.models.checkpoints.reader import (
    LazyStateDict,
    LazyTensor,
    check_names_and_shapes,
    open_safetensors,
    shapes_of,
)
from lens.models.checkpoints.registry import GPT_OSS_20B
from lens.models.text_encoder import LensGptOssEncoder

TOKENIZER_KEY = "tokenizer_json"
LM_HEAD_NAME = "lm_head.weight"

_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GGUF_BLOCK = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate_inp": "mlp.router",
}


def load_text_encoder(
    path: str | Path,
    torch_dtype: torch.dtype = torch.bfloat16,
    config: Mapping[str, Any] | None = None,
    *,
    keep_packed: bool = False,
) -> LensGptOssEncoder:
    """Return the text encoder of a folder, an NVFP4 .safetensors file or a .gguf file, in eval mode.

    Single files are dequantized: GPT-OSS-20B takes about 42 GB in bfloat16. With `keep_packed` the experts of
    an NVFP4 file stay in NVFP4 (about 13 GB in all) and each is dequantized when tokens reach it, which is
    slower.
    Raises: CheckpointError that names what does not fit, and what the file probably is.
    """
    path = Path(path)
    if path.is_dir():
        folder = resolve_component_folder(path, "text_encoder")
        check_component(folder, "text_encoder")
        return LensGptOssEncoder.from_pretrained(folder, dtype=torch_dtype).eval()
    if keep_packed and path.suffix.lower() != ".safetensors":
        raise SettingError("keep_packed", str(path), "an NVFP4 .safetensors file")
    stored = open_text_encoder_file(path, torch_dtype)
    settings = dict(config or infer_text_encoder_config(shapes_of(stored.tensors), source=path))
    model = init_empty(lambda: _build_encoder(settings))
    if LM_HEAD_NAME not in stored.tensors:
        model.lm_head = MissingLMHead(path)  # type: ignore[assignment]
    tensors = _pack_experts(model, stored.tensors, path) if keep_packed else stored.tensors
    load_state_dict_strict(model, tensors, torch_dtype, source=path, what=COMPONENT_LABELS["text_encoder"])
    return model


def _pack_experts(
    model: LensGptOssEncoder, tensors: Mapping[str, LazyTensor], path: Path
) -> dict[str, LazyTensor]:
    """Replace the experts of every layer by packed ones; return the tensors that remain to be read."""
    from lens.models.quantized.nvfp4_experts import Nvfp4Experts

    raw = open_safetensors(path).tensors
    if not _has_outputs_first(raw):
        raise SettingError("keep_packed", str(path), "a file whose experts have their outputs first")
    left = dict(tensors)
    layers: Any = model.model.layers
    for index, layer in enumerate(layers):
        front = f"layers.{index}.mlp.experts"
        experts = Nvfp4Experts(layer.mlp.experts)
        for name in ("gate_up_proj", "down_proj"):
            stored = f"{front}.{name}" if f"{front}.{name}.weight_scale_2" in raw else f"model.{front}.{name}"
            parts = [raw.get(f"{stored}.{part}") for part in ("weight", "weight_scale", "weight_scale_2")]
            expected = left.pop(f"model.{front}.{name}", None)
            if expected is None or None in parts:
                raise CheckpointError(f"{path} does not have {stored} in NVFP4. Load it without keep_packed.")
            check_names_and_shapes(
                {name: tuple(getattr(layer.mlp.experts, name).shape)}, {name: expected.shape}, source=path,
                what=f"{stored} of the text encoder",
            )  # fmt: skip
            experts.set_packed(name, *(part.read() for part in parts if part is not None))
        layer.mlp.experts = experts
    return left


def _build_encoder(settings: Mapping[str, Any]) -> LensGptOssEncoder:
    from transformers import GptOssConfig

    return LensGptOssEncoder(GptOssConfig(**settings))


class MissingLMHead(nn.Module):
    """The LM head of a file that has none: text features do not use it, `generate` raises an error."""

    def __init__(self, source: object):
        super().__init__()
        self.source = source

    def forward(self, *_: Any) -> Tensor:
        raise LensError(f"{self.source} has no LM head, so it can encode prompts but not generate text. "
                        "For that, load the text encoder of a model folder.")  # fmt: skip


def open_text_encoder_file(path: Path, dtype: torch.dtype = torch.float32) -> LazyStateDict:
    """Return the tensors of a single-file text encoder in transformers' layout."""
    stored = open_weights_file(path)
    is_gguf = path.suffix.lower() == GGUF_SUFFIX
    tensors = (
        from_llama_cpp(stored.tensors, source=path)
        if is_gguf
        else from_quantized(stored.tensors, source=path, dtype=dtype)
    )
    return LazyStateDict(tensors, stored.metadata)


def from_quantized(
    tensors: Mapping[str, LazyTensor], *, source: object, dtype: torch.dtype = torch.float32
) -> dict[str, LazyTensor]:
    """Return the tensors of a quantized file in transformers' layout, each dequantized when read."""
    layers = quantized_layers(tensors)
    if not layers:
        kind = detect_kind(tensors) or "no kind of file known here"
        raise CheckpointError(f"{source} is not a quantized text encoder. It is probably {kind}.")
    plain = dequantize_layers(tensors, source=source, dtype=dtype)
    plain.pop(TOKENIZER_KEY, None)
    if _has_outputs_first(tensors):
        plain |= {layer: _transpose(plain[layer]) for layer in layers if layer in plain}
    return {_transformers_name(name): tensor for name, tensor in plain.items()}


def _transformers_name(name: str) -> str:
    name = re.sub(r"(experts\.\w+_proj)\.bias$", r"\1_bias", name)
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def _has_outputs_first(tensors: Mapping[str, LazyTensor]) -> bool:
    """Return whether stacks of experts are (E, O, I), from their biases, which have one number per output.

    A single stack that is not decides for the file, as both orders fit where inputs equal outputs.
    """
    for name, bias in tensors.items():
        layer = re.sub(r"[._]bias$", "", name)
        packed = tensors.get(f"{layer}.weight") or tensors.get(layer)
        if layer == name or packed is None or len(packed.shape) != 3:
            continue
        if packed.shape[1] != bias.shape[-1]:
            return False
    return True


def from_llama_cpp(tensors: Mapping[str, LazyTensor], *, source: object) -> dict[str, LazyTensor]:
    """Return tensors in llama.cpp's gpt-oss naming in transformers' layout; unknown names are kept."""
    if "blk.0.ffn_gate_exps.weight" not in tensors:
        kind = detect_kind(tensors) or "no kind of file known here"
        raise CheckpointError(f"{source} is not a GPT-OSS text encoder. It is probably {kind}.")
    plain: dict[str, LazyTensor] = {}
    for name in tensors:
        block = re.match(r"blk\.(\d+)\.(\w+?)(?:\.(weight|bias))?$", name)
        if block is None:
            top, _, leaf = name.rpartition(".")
            plain[f"{_GGUF_TOP[top]}.{leaf}" if top in _GGUF_TOP else name] = tensors[name]
            continue
        index, kind, leaf = block[1], block[2], block[3]
        layer = f"model.layers.{index}"
        if kind in _GGUF_BLOCK:
            plain[f"{layer}.{_GGUF_BLOCK[kind]}.{leaf}"] = tensors[name]
        elif kind == "attn_sinks":
            plain[f"{layer}.self_attn.sinks"] = tensors[name]
        elif kind == "ffn_down_exps":
            down = _transpose(tensors[name]) if leaf == "weight" else tensors[name]
            plain[_expert_name(layer, "down_proj", leaf)] = down
        elif kind == "ffn_gate_exps" and (up := tensors.get(f"blk.{index}.ffn_up_exps.{leaf}")):
            plain[_expert_name(layer, "gate_up_proj", leaf)] = _interleave_gate_up(tensors[name], up)
        elif kind != "ffn_up_exps" or f"blk.{index}.ffn_gate_exps.{leaf}" not in tensors:
            plain[name] = tensors[name]
    return plain


def _expert_name(layer: str, name: str, leaf: str) -> str:
    return f"{layer}.mlp.experts.{name}" + ("_bias" if leaf == "bias" else "")


def _transpose(stored: LazyTensor) -> LazyTensor:
    experts, outputs, inputs = stored.shape
    shape = (experts, inputs, outputs)
    return LazyTensor(shape, stored.dtype, lambda: stored.read().transpose(1, 2).contiguous())


def _interleave_gate_up(gate: LazyTensor, up: LazyTensor) -> LazyTensor:
    """Return gate and up as one tensor whose outputs alternate, gate first.

    Shapes: two (E, O, I) -> (E, I, 2 O); two biases (E, O) -> (E, 2 O).
    """
    experts, outputs = gate.shape[:2]

    def read() -> Tensor:
        both = torch.stack([gate.read(), up.read()], dim=2)                       # (E, O, 2, I) or (E, O, 2)
        both = both.flatten(1, 2)                                                 # (E, 2 O, I) or (E, 2 O)
        return both.transpose(1, 2).contiguous() if both.ndim == 3 else both

    return LazyTensor((experts, *gate.shape[2:], 2 * outputs), gate.dtype, read)


def infer_text_encoder_config(shapes: Mapping[str, tuple[int, ...]], *, source: object) -> dict[str, Any]:
    """Return the configuration of a GPT-OSS of these shapes; the rest is as in the released model."""
    layer = "model.layers.0"
    try:
        vocab, hidden = shapes["model.embed_tokens.weight"]
        (heads,) = shapes[f"{layer}.self_attn.sinks"]
        head_dim = shapes[f"{layer}.self_attn.q_proj.weight"][0] // heads
        kv_heads = shapes[f"{layer}.self_attn.k_proj.weight"][0] // head_dim
        experts, inner, _ = shapes[f"{layer}.mlp.experts.down_proj"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{source} is incomplete: {error} is missing or mis-shaped.") from error
    layers = {int(name.split(".")[2]) for name in shapes if name.startswith("model.layers.")}
    return GPT_OSS_20B | {
        "num_hidden_layers": max(layers) + 1,
        "num_local_experts": experts,
        "num_experts_per_tok": min(experts, GPT_OSS_20B["num_experts_per_tok"]),
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "head_dim": head_dim,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        # Ids of the released vocabulary are not valid in a smaller one.
        "pad_token_id": GPT_OSS_20B["pad_token_id"] if vocab > GPT_OSS_20B["pad_token_id"] else None,
        "eos_token_id": GPT_OSS_20B["eos_token_id"] if vocab > GPT_OSS_20B["eos_token_id"] else None,
    }
