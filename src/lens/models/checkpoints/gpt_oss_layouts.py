"""Layouts of GPT-OSS files: quantized files (NVFP4), folders with experts in MXFP4, and GGUF.

Names and axes are converted to transformers' layout, where experts are (E, inputs, outputs) and the outputs
of gate and up alternate. Spec: section 6.
Letters: E experts, O outputs, I inputs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.detect import TEXT_ENCODER_CONFIG_KEY, detect_kind
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
from lens.models.checkpoints.quantized_layers import dequantize_layers, open_weights_file, quantized_layers
from lens.models.checkpoints.reader import LazyStateDict, LazyTensor, shapes_of, stored_config
from lens.models.checkpoints.registry import GPT_OSS_20B
from lens.models.quantized.mxfp4_values import BLOCK_SIZE, dequantize
from lens.models.quantized.packed_weight import MXFP4, PackedSource
from lens.models.shapes import check_config

TOKENIZER_KEY = "tokenizer_json"

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
    """Return the tensors of a safetensors file in transformers' layout, quantized ones dequantized when read.

    Raises: CheckpointError for a file of something else.
    """
    if not any(name.endswith("self_attn.sinks") for name in tensors):
        kind = detect_kind(tensors) or "no kind of file known here"
        raise CheckpointError(f"{source} is not a GPT-OSS text encoder. It is probably {kind}.")
    layers = quantized_layers(tensors)
    plain = dequantize_layers(tensors, source=source, dtype=dtype)
    plain.pop(TOKENIZER_KEY, None)
    stacks = [layer for layer in layers if layer in plain]
    if _has_outputs_first(tensors):
        plain |= {layer: _transpose(plain[layer]) for layer in stacks}
    else:
        # Packed experts have their outputs first; the others are dequantized as a whole.
        plain |= {layer: plain[layer]._replace(packed=None) for layer in stacks}
    plain = {_transformers_name(name): tensor for name, tensor in plain.items()}
    return join_mxfp4_experts(plain, dtype)


def join_mxfp4_experts(
    tensors: Mapping[str, LazyTensor], dtype: torch.dtype = torch.float32
) -> dict[str, LazyTensor]:
    """Return the same tensors with `*_blocks` and `*_scales` of experts as one tensor, packed in MXFP4.

    Names and shapes that do not fit each other are kept, and reported as extra.
    """
    joined = dict(tensors)
    for name in [name for name in tensors if name.endswith("_blocks")]:
        front = name.removesuffix("_blocks")
        blocks, scales = tensors[name], tensors.get(f"{front}_scales")
        if scales is None or len(blocks.shape) != 4 or scales.shape != blocks.shape[:3]:
            continue
        experts, outputs, groups, _ = blocks.shape
        packed = PackedSource(MXFP4, (blocks, scales), (experts, outputs, groups * BLOCK_SIZE))

        def read(blocks: LazyTensor = blocks, scales: LazyTensor = scales) -> Tensor:
            pairs = zip(blocks.read(), scales.read(), strict=True)
            return torch.stack([dequantize(block, scale, dtype).T for block, scale in pairs])  # (E, I, O)

        shape = (experts, groups * BLOCK_SIZE, outputs)
        joined[front] = LazyTensor(shape, "F32", read, packed)
        del joined[name], joined[f"{front}_scales"]
    return joined


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
    read = lambda: stored.read().transpose(1, 2).contiguous()  # noqa: E731
    return LazyTensor(shape, stored.dtype, read, stored.packed)


def _interleave_gate_up(gate: LazyTensor, up: LazyTensor) -> LazyTensor:
    """Return gate and up as one tensor whose outputs alternate, gate first.

    Shapes: two (E, O, I) -> (E, I, 2 O); two biases (E, O) -> (E, 2 O).
    """
    experts, outputs = gate.shape[:2]

    def read() -> Tensor:
        both = torch.stack([gate.read(), up.read()], dim=2)  # (E, O, 2, I) or (E, O, 2)
        both = both.flatten(1, 2)  # (E, 2 O, I) or (E, 2 O)
        return both.transpose(1, 2).contiguous() if both.ndim == 3 else both

    packed = None
    if gate.packed is not None and up.packed is not None:
        packed = gate.packed._replace(interleaved=up.packed)
    return LazyTensor((experts, *gate.shape[2:], 2 * outputs), gate.dtype, read, packed)


def llama_cpp_name(name: str, half: str = "") -> str:
    """Return llama.cpp's name of a tensor in transformers' naming; `half` is gate or up of a gate_up_proj."""
    experts = re.match(r"model\.layers\.(\d+)\.mlp\.experts\.(?:gate_up|down)_proj(_bias)?$", name)
    if experts:
        leaf = "bias" if experts[2] else "weight"
        return f"blk.{experts[1]}.ffn_{half or 'down'}_exps.{leaf}"
    block = re.match(r"model\.layers\.(\d+)\.(.+)", name)
    if block is None:
        module, _, leaf = name.rpartition(".")
        own = {theirs: name for name, theirs in _GGUF_TOP.items()}
        return f"{own[module]}.{leaf}"
    if block[2] == "self_attn.sinks":
        return f"blk.{block[1]}.attn_sinks.weight"
    module, _, leaf = block[2].rpartition(".")
    own = {theirs: name for name, theirs in _GGUF_BLOCK.items()}
    return f"blk.{block[1]}.{own[module]}.{leaf}"


def text_encoder_config(
    tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], *, source: object
) -> dict[str, Any]:
    """Return the configuration of a single file, from its metadata or else from its shapes."""
    if TEXT_ENCODER_CONFIG_KEY in metadata:
        config = stored_config(metadata, TEXT_ENCODER_CONFIG_KEY, source)
        check_config("text_encoder", config, source)
        return config
    return infer_text_encoder_config(shapes_of(tensors), source=source)


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
