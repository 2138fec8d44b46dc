"""A tiny model as single files of the published layouts: what a ComfyUI folder holds.

Text width 48 and experts' width 32 differ and divide by 16, as NVFP4 needs.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import torch
from safetensors.torch import save_file
from tiny_models import tiny_denoiser, tiny_encoder, tiny_tokenizer, tiny_vae

from lens.models.checkpoints.single_file import save_denoiser
from lens.models.checkpoints.vae import save_vae_single_file
from lens.models.quantized import nvfp4

TEXT_WIDTH = 48
ENCODER: dict[str, Any] = {"hidden_size": TEXT_WIDTH, "intermediate_size": 32, "sliding_window": 128}
# What shapes do not show is that of the released encoder.
ENCODER |= {"num_experts_per_tok": 3, "max_position_embeddings": 131072}
CONTROL, NORMAL = 3, 1
LLAMA_CPP_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.router": "ffn_gate_inp",
}


class ModelFiles(NamedTuple):
    """The files of a model in a ComfyUI tree."""

    root: Path
    denoiser: Path
    text_encoder: Path
    vae: Path


def write_tree(root: Path, denoiser_name: str = "lens_turbo_bf16.safetensors", **denoiser: Any) -> ModelFiles:
    """Write a ComfyUI tree with one Lens model: denoiser, NVFP4 text encoder with a tokenizer, VAE."""
    paths = ModelFiles(
        root,
        root / "models" / "diffusion_models" / denoiser_name,
        root / "models" / "text_encoders" / "gpt.safetensors",
        root / "models" / "vae" / "latents.safetensors",
    )
    for path in paths[1:]:
        path.parent.mkdir(parents=True)
    save_denoiser(tiny_denoiser(enc_hidden_dim=TEXT_WIDTH, **denoiser), paths.denoiser)
    write_nvfp4_encoder(paths.text_encoder)
    save_vae_single_file(tiny_vae(), paths.vae)
    return paths


def write_nvfp4_encoder(path: Path, *, has_tokenizer: bool = True, **changes: Any) -> Path:
    """Write an encoder whose experts are in NVFP4, without an LM head."""
    tensors = {}
    for name, value in tiny_encoder(**(ENCODER | changes)).state_dict().items():
        own = name.removeprefix("model.").replace("_proj_bias", "_proj.bias")
        if name == "lm_head.weight":
            continue
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[own] = value
            continue
        parts = [torch.stack(part) for part in zip(*map(nvfp4.quantize, value.mT), strict=True)]
        suffixes = ("weight", "weight_scale", "weight_scale_2")
        tensors |= {f"{own}.{suffix}": part for suffix, part in zip(suffixes, parts, strict=True)}
    if has_tokenizer:
        text = tiny_tokenizer().backend_tokenizer.to_str().encode()
        tensors["tokenizer_json"] = torch.tensor(list(text), dtype=torch.uint8)
    save_file(tensors, path)
    return path


def write_gguf_encoder(
    path: Path, *, split: str = "gpt-4o", has_tokenizer: bool = True, **changes: Any
) -> Path:
    """Write an encoder as llama.cpp stores GPT-OSS, with its vocabulary and merges."""
    state = tiny_encoder(**(ENCODER | changes)).state_dict()
    writer = gguf.GGUFWriter(path, "gpt-oss")
    if has_tokenizer:
        _add_tokenizer(writer, split)
    for name, value in _llama_cpp_tensors(state).items():
        writer.add_tensor(name, value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, split: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    control = set(tokenizer.get_added_vocab())
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([token for token, _ in ids])
    writer.add_token_types([CONTROL if token in control else NORMAL for token, _ in ids])
    writer.add_token_merges([" ".join(merge) for merge in merges])


def _llama_cpp_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    tensors = {f"{own}.weight": state[f"{name}.weight"] for own, name in top.items()}
    for name, value in state.items():
        if not name.startswith("model.layers."):
            continue
        index, inside = name.removeprefix("model.layers.").split(".", 1)
        block, experts = f"blk.{index}", inside.removeprefix("mlp.experts.")
        if experts.startswith("gate_up_proj"):
            leaf = "bias" if experts.endswith("bias") else "weight"
            for start, kind in enumerate(("gate", "up")):
                half = value[..., start::2]
                tensors[f"{block}.ffn_{kind}_exps.{leaf}"] = half if leaf == "bias" else half.mT
        elif experts.startswith("down_proj"):
            is_bias = experts.endswith("bias")
            tensors[f"{block}.ffn_down_exps.{'bias' if is_bias else 'weight'}"] = (
                value if is_bias else value.mT
            )
        elif inside == "self_attn.sinks":
            tensors[f"{block}.attn_sinks.weight"] = value
        else:
            own, _, leaf = inside.rpartition(".")
            tensors[f"{block}.{LLAMA_CPP_NAMES[own]}.{leaf}"] = value
    return tensors
