"""Write full-size Lens weights with random values, in every layout in which the released ones circulate.

    python scripts/make_full_size.py OUT --layout folder single-mxfp8 encoder-nvfp4 vae-flux2
    python scripts/make_full_size.py OUT --layout gguf-q4_k --denoiser '{"num_layers": 4}'
    python scripts/make_full_size.py OUT --layout folder --tiny        # the same files, a few KB each

Names, shapes, dtypes and sizes are the published ones, so loading, memory and speed are as with the true
weights; images are noise. The weights of a denoiser are the same in `folder`, `folder-f32` and `single-bf16`.
Files are streamed: a layout takes under 1 GB of memory. OUT can be used as a ComfyUI `models` folder; model
folders are OUT/lens and OUT/lens-f32. K-quants are random blocks, as the `gguf` package cannot quantize to
them. The tokenizer is that of scripts/make_gpt_oss_tokenizer.py, which is run where its folder is missing.
Spec: section 6.
"""

import argparse
import json
import math
import re
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import random_weights as draw
import torch
from make_gpt_oss_tokenizer import fetch_ranks, parse_ranks, tokenizer_folder, write_tokenizer
from random_weights import Shape

from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.models.checkpoints.conversion.gguf_settings import gpt_oss_settings, tokenizer_settings
from lens.models.checkpoints.gguf_header import GGUF_FORMATS
from lens.models.checkpoints.gguf_writer import StreamedGgufTensor, write_gguf_streamed
from lens.models.checkpoints.gpt_oss_layouts import llama_cpp_name
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.checkpoints.writer import (
    SHARD_BYTES,
    StreamedTensor,
    write_safetensors_streamed,
    write_sharded_safetensors,
)
from lens.models.quantized.torchao import is_quantizable
from lens.models.shapes import denoiser_shapes, text_encoder_shapes, vae_shapes

DIFFUSERS_VERSION = "0.37.0"
EXPERTS = re.compile(r"mlp\.experts\.(gate_up_proj|down_proj)$")
ENCODER_MATRICES = tuple(f"self_attn.{name}_proj.weight" for name in "qkvo")

TINY: dict[str, dict[str, Any]] = {
    "denoiser": {
        "in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 32,
        "num_attention_heads": 3, "inner_dim": 96, "enc_hidden_dim": 64, "axes_dims_rope": (8, 12, 12),
        "selected_layer_index": (0, 2),
    },
    "text_encoder": {
        "num_hidden_layers": 3, "num_local_experts": 5, "num_experts_per_tok": 4, "hidden_size": 64,
        "intermediate_size": 32, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    },
    "vae": {
        "block_out_channels": (4, 4, 8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2,
    },
}  # fmt: skip
TINY_SHARD_BYTES = 200_000


class Request(NamedTuple):
    """What is written: where, of which sizes, and from which seed."""

    out: Path
    denoiser: dict[str, Any] = LENS_DENOISER
    text_encoder: dict[str, Any] = GPT_OSS_20B
    vae: dict[str, Any] = FLUX2_VAE
    tokenizer: Path | None = None
    """A folder with tokenizer.json; only text encoders need one."""
    seed: int = 0
    shard_bytes: int = SHARD_BYTES
    components: tuple[str, ...] = ("transformer", "text_encoder", "vae")
    """The parts of a model folder that are written."""


# Plain values.


def plain(request: Request, part: str, shapes: Mapping[str, Shape], dtype: str) -> dict[str, StreamedTensor]:
    """Return the tensors of a part of the model, unquantized."""
    return {name: _plain_tensor(request.seed, part, name, shape, dtype) for name, shape in shapes.items()}


def _plain_tensor(seed: int, part: str, name: str, shape: Shape, dtype: str) -> StreamedTensor:
    if name.endswith("num_batches_tracked"):
        return draw.constant(shape, "I64", 1000)
    std, mean = weight_size(name, shape)
    return draw.normal(seed, f"{part}/{name}", shape, dtype, std, mean)


def weight_size(name: str, shape: Shape) -> tuple[float, float]:
    """Return standard deviation and mean of a tensor, at which features and velocities stay finite."""
    if name.endswith("running_var"):
        return 0.1, 1.0
    if name.endswith(("running_mean", "sinks")):
        return 0.3, 0.0
    if "embed_tokens" in name:
        return 1.0, 0.0
    if "bias" in name:
        return 0.02, 0.0
    if len(shape) == 1:  # of norms
        return 0.05, 1.0
    size = math.prod(shape[1:]) ** -0.5
    return (size / 2, 0.0) if "_mod." in name else (size, 0.0)  # gates stay small


# Denoiser.


def write_single_bf16(request: Request) -> list[Path]:
    path = request.out / "diffusion_models" / "lens_bf16.safetensors"
    tensors = plain(request, "denoiser", denoiser_shapes(request.denoiser), "BF16")
    write_safetensors_streamed(path, tensors, _denoiser_metadata(request))
    return [path]


def write_single_mxfp8(request: Request) -> list[Path]:
    """Attention and MLPs in MXFP8; modulation, projections in and out and embeddings in bfloat16."""
    path = request.out / "diffusion_models" / "lens_mxfp8.safetensors"
    tensors: dict[str, StreamedTensor] = {}
    for name, shape in denoiser_shapes(request.denoiser).items():
        layer = name.removesuffix(".weight")
        if len(shape) == 2 and is_quantizable(layer) and shape[1] % 32 == 0:
            tensors |= draw.mxfp8(request.seed, layer, shape, weight_size(name, shape)[0])
        else:
            tensors[name] = _plain_tensor(request.seed, "denoiser", name, shape, "BF16")
    write_safetensors_streamed(path, tensors, _denoiser_metadata(request))
    return [path]


def write_denoiser_gguf(request: Request, kind: str) -> list[Path]:
    """Matrices of the blocks in one format, other matrices in float16, the rest in float32."""
    path = request.out / "diffusion_models" / f"lens_{kind.lower()}.gguf"
    tensors: dict[str, StreamedGgufTensor] = {}
    for name, shape in denoiser_shapes(request.denoiser).items():
        std, mean = weight_size(name, shape)
        if len(shape) == 2:
            own = kind if name.startswith("transformer_blocks.") else "F16"
            tensors[name] = _gguf_matrix(request.seed, f"denoiser/{name}", shape, own, std)
        else:
            tensors[name] = _gguf(draw.normal(request.seed, f"denoiser/{name}", shape, "F32", std, mean))
    settings = {key: value for key, value in _denoiser_metadata(request).items() if key != "format"}
    write_gguf_streamed(path, tensors, "lens", settings)
    return [path]


def _gguf_matrix(seed: int, name: str, shape: Shape, kind: str, std: float) -> StreamedGgufTensor:
    """Return a matrix in a format, or in float16 where its rows are not whole blocks."""
    values = next(values for own, values, _ in GGUF_FORMATS.values() if own == kind)
    if kind == "F16" or shape[-1] % values:
        return _gguf(draw.normal(seed, name, shape, "F16", std))
    return draw.gguf_blocks(seed, name, shape, kind, std)


def _gguf(tensor: StreamedTensor) -> StreamedGgufTensor:
    return StreamedGgufTensor(tensor.shape, tensor.dtype, tensor.read)


def _denoiser_metadata(request: Request) -> dict[str, str]:
    """Return the metadata of a single file, with its configuration unless the released one is inferred."""
    from lens.models.checkpoints.single_file import DENOISER_CONFIG_KEY

    other = request.denoiser != LENS_DENOISER | {"num_layers": request.denoiser["num_layers"]}
    return {"format": "pt"} | ({DENOISER_CONFIG_KEY: json.dumps(request.denoiser)} if other else {})


# Text encoder.


def encoder_tensors(request: Request, with_head: bool = True) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Return the shapes of the text encoder's plain weights, and those of its experts as (E, O, I)."""
    shapes = text_encoder_shapes(request.text_encoder, with_head=with_head)
    experts = {name: (shape[0], *shape[:0:-1]) for name, shape in shapes.items() if EXPERTS.search(name)}
    return {name: shape for name, shape in shapes.items() if name not in experts}, experts


def write_encoder_nvfp4(request: Request) -> list[Path]:
    """Names without `model.`, experts in NVFP4, no LM head, the tokenizer inside."""
    path = request.out / "text_encoders" / "gpt_oss_20b_nvfp4.safetensors"
    shapes, experts = encoder_tensors(request, with_head=False)
    tensors: dict[str, StreamedTensor] = {}
    for name, tensor in plain(request, "encoder", shapes, "BF16").items():
        tensors[re.sub(r"_proj_bias$", "_proj.bias", name.removeprefix("model."))] = tensor
    for name, shape in experts.items():
        tensors |= draw.nvfp4(request.seed, name.removeprefix("model."), shape, shape[-1] ** -0.5)
    tensors["tokenizer_json"] = draw.byte_tensor((_tokenizer(request) / "tokenizer.json").read_bytes())
    write_safetensors_streamed(path, tensors)
    return [path]


def write_encoder_gguf(request: Request) -> list[Path]:
    """As llama.cpp stores gpt-oss: experts in MXFP4, gate and up apart; matrices in Q8_0, the rest F32."""
    path = request.out / "text_encoders" / "gpt_oss_20b_mxfp4.gguf"
    shapes, experts = encoder_tensors(request)
    tensors: dict[str, StreamedGgufTensor] = {}
    for name, shape in (shapes | experts).items():
        std, mean = weight_size(name, shape) if name in shapes else (shape[-1] ** -0.5, 0.0)
        halves = ("gate", "up") if "gate_up_proj" in name else ("",)
        shape = (shape[0], shape[1] // len(halves), *shape[2:]) if halves[0] else shape
        for half in halves:
            own = llama_cpp_name(name, half)
            if name in experts:
                tensors[own] = draw.gguf_blocks(request.seed, own, shape, "MXFP4", std)
            elif name.endswith((*ENCODER_MATRICES, "embed_tokens.weight", "lm_head.weight")):
                tensors[own] = _gguf_matrix(request.seed, own, shape, "Q8_0", std)
            else:
                tensors[own] = _gguf(draw.normal(request.seed, own, shape, "F32", std, mean))
    folder, config = _tokenizer(request), request.text_encoder
    settings = {
        "general.name": "gpt-oss-20b of random weights",
        **gpt_oss_settings(config),
        **tokenizer_settings((folder / "tokenizer.json").read_bytes(), config["vocab_size"]),
        "tokenizer.chat_template": (folder / "chat_template.jinja").read_text(encoding="utf-8"),
    }
    write_gguf_streamed(path, tensors, "gpt-oss", settings)
    return [path]


def _tokenizer(request: Request) -> Path:
    if request.tokenizer is None:
        raise SettingError("--tokenizer", None, "a folder with tokenizer.json", "Text encoders need one.")
    return request.tokenizer


# VAE.


def write_vae_flux2(request: Request) -> list[Path]:
    from lens.models.checkpoints.vae import VAE_CONFIG_KEY, flux2_name

    path = request.out / "vae" / "flux2-vae.safetensors"
    tensors = {}
    for name, tensor in plain(request, "vae", vae_shapes(request.vae), "F32").items():
        own = flux2_name(name, len(request.vae["block_out_channels"]))
        is_attention = ".mid.attn_1." in own and len(tensor.shape) == 2  # 1x1 convolutions there
        tensors[own] = tensor._replace(shape=(*tensor.shape, 1, 1)) if is_attention else tensor
    metadata = {} if request.vae == FLUX2_VAE else {VAE_CONFIG_KEY: json.dumps(request.vae)}
    write_safetensors_streamed(path, tensors, {"format": "pt"} | metadata)
    return [path]


def write_vae_diffusers(request: Request, folder: Path | None = None) -> list[Path]:
    folder = folder or request.out / "vae-diffusers"
    levels = len(request.vae["block_out_channels"])
    config = {
        "_class_name": "AutoencoderKLFlux2", "act_fn": "silu", "batch_norm_eps": 1e-4,
        "batch_norm_momentum": 0.1, "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels, "force_upcast": True,
        "mid_block_add_attention": True, "sample_size": 1024, "use_post_quant_conv": True,
        "use_quant_conv": True,
    }  # fmt: skip
    tensors = plain(request, "vae", vae_shapes(request.vae), "F32")
    stem = "diffusion_pytorch_model"
    return [
        _write_config(folder / "config.json", config | request.vae),
        *write_sharded_safetensors(folder, tensors, stem, SHARD_BYTES),
    ]


# Model folders.


def write_folder(request: Request, dtype: str = "BF16") -> list[Path]:
    """A denoiser in bfloat16 or float32, GPT-OSS in MXFP4, and the VAE, with all that is beside them."""
    folder = request.out / ("lens" if dtype == "BF16" else "lens-f32")
    files: list[Path] = []
    if "transformer" in request.components:
        tensors = plain(request, "denoiser", denoiser_shapes(request.denoiser), dtype)
        config = {"_class_name": "LensTransformer2DModel"} | request.denoiser
        files += [
            _write_config(folder / "transformer" / "config.json", config),
            *write_sharded_safetensors(
                folder / "transformer", tensors, "diffusion_pytorch_model", request.shard_bytes
            ),
        ]
    if "text_encoder" in request.components:
        files += _write_mxfp4_encoder(request, folder / "text_encoder")
    if "vae" in request.components:
        files += write_vae_diffusers(request, folder / "vae")
    shutil.copytree(_tokenizer(request), folder / "tokenizer", dirs_exist_ok=True)
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 256, "base_shift": 0.5,
        "invert_sigmas": False, "max_image_seq_len": 4096, "max_shift": 1.15, "num_train_timesteps": 1000,
        "shift": 3.0, "shift_terminal": None, "stochastic_sampling": False,
        "time_shift_type": "exponential", "use_beta_sigmas": False, "use_dynamic_shifting": True,
        "use_exponential_sigmas": False, "use_karras_sigmas": False,
    }  # fmt: skip
    index = {
        "_class_name": "LensPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "LensGptOssEncoder"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "LensTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    }
    files.append(_write_config(folder / "scheduler" / "scheduler_config.json", scheduler))
    return [*files, _write_config(folder / "model_index.json", index)]


def _write_mxfp4_encoder(request: Request, folder: Path) -> list[Path]:
    config = request.text_encoder
    layers = config["num_hidden_layers"]
    published = {
        "architectures": ["LensGptOssEncoder"], "attention_bias": True, "attention_dropout": 0.0,
        "dtype": "bfloat16", "hidden_act": "silu", "initial_context_length": 4096,
        "initializer_range": 0.02, "layer_types": (["sliding_attention", "full_attention"] * layers)[:layers],
        "model_type": "gpt_oss", "output_router_logits": False, "router_aux_loss_coef": 0.9,
        "tie_word_embeddings": False, "use_cache": True,
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
            ],
            "quant_method": "mxfp4",
        },
    }  # fmt: skip
    shapes, experts = encoder_tensors(request)
    tensors = plain(request, "encoder", shapes, "BF16")
    for name, shape in experts.items():
        tensors |= draw.mxfp4(request.seed, name, shape, shape[-1] ** -0.5)
    return [
        _write_config(folder / "config.json", published | config),
        *write_sharded_safetensors(folder, tensors, "model", request.shard_bytes),
    ]


def _write_config(path: Path, values: Mapping[str, Any]) -> Path:
    if "_class_name" in values:
        values = dict(values) | {"_diffusers_version": DIFFUSERS_VERSION}
    return write_bytes_atomic(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


# The command.

GGUF_KINDS = ("F16", *draw.GGUF_SCALES)

LAYOUTS: dict[str, Callable[[Request], list[Path]]] = {
    "folder": write_folder,
    "folder-f32": lambda request: write_folder(request, "F32"),
    "single-bf16": write_single_bf16,
    "single-mxfp8": write_single_mxfp8,
    **{
        f"gguf-{kind.lower()}": (lambda request, kind=kind: write_denoiser_gguf(request, kind))
        for kind in GGUF_KINDS
    },
    "encoder-nvfp4": write_encoder_nvfp4,
    "encoder-gguf": write_encoder_gguf,
    "vae-flux2": write_vae_flux2,
    "vae-diffusers": write_vae_diffusers,
}


def tiny_request(out: Path, tokenizer: Path, **changes: Any) -> Request:
    """Return a request for files of a few KB; the vocabulary is that of the tokenizer in a folder."""
    names = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    stored = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {added["content"]: added["id"] for added in stored["added_tokens"]}
    encoder = TINY["text_encoder"] | {
        "vocab_size": len(stored["model"]["vocab"]) + len(ids),
        "pad_token_id": ids[names["pad_token"]],
        "eos_token_id": ids[names["eos_token"]],
    }
    request = Request(
        out, LENS_DENOISER | TINY["denoiser"], GPT_OSS_20B | encoder, FLUX2_VAE | TINY["vae"], tokenizer,
        shard_bytes=TINY_SHARD_BYTES,
    )  # fmt: skip
    return request._replace(**changes)


def _find_tokenizer(given: Path | None, is_tiny: bool, out: Path) -> Path:
    """Return the folder of the tokenizer: the one given, or one that is made."""
    if given is not None:
        return given
    if is_tiny:
        from lens.models.prompt_template import PREAMBLE, SCAFFOLD
        from lens.models.tokenizer import train_tokenizer

        train_tokenizer([PREAMBLE, SCAFFOLD], 640).save_pretrained(out / "tokenizer")
        return out / "tokenizer"
    folder = tokenizer_folder()
    return folder if folder.is_dir() else write_tokenizer(folder, parse_ranks(fetch_ranks()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the layouts; print for each its size, the seconds that it took, and the peak of memory so far."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--layout", nargs="+", choices=LAYOUTS, required=True, metavar="NAME", help=", ".join(LAYOUTS)
    )
    parts = Request._field_defaults["components"]
    parser.add_argument(
        "--components", nargs="+", default=parts, choices=parts, help="parts of a model folder"
    )
    parser.add_argument("--tokenizer", type=Path, help="its folder; without it the published one is made")
    parser.add_argument("--tiny", action="store_true", help="the same files with a few KB each")
    for part in TINY:
        option = f"--{part.replace('_', '-')}"
        parser.add_argument(option, type=json.loads, default={}, help="JSON of settings that differ")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tokenizer = _find_tokenizer(options.tokenizer, options.tiny, options.out)
    request = (
        tiny_request(options.out, tokenizer) if options.tiny else Request(options.out, tokenizer=tokenizer)
    )
    request = request._replace(
        seed=options.seed,
        components=tuple(options.components),
        **{part: getattr(request, part) | getattr(options, part) for part in TINY},
    )
    torch.set_num_threads(1)  # copies and the disk take the time, and threads wait for each other
    for name in options.layout:
        started_at = time.perf_counter()
        size = sum(path.stat().st_size for path in LAYOUTS[name](request))
        elapsed_s = time.perf_counter() - started_at
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name}: {size / 1e9:.2f} GB in {elapsed_s:.0f} s, peak {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
