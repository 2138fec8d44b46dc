"""GPT-OSS text encoders in every format: folders, one file as ComfyUI has it, and llama.cpp's GGUF.

Experts are quantized; in GGUF's 8 and 4 bits attention is too. Router, embeddings, norms, sinks and biases
keep their precision. Spec: sections 6 and 14.
Letters: E experts, O outputs, I inputs, M inner width of an expert.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.errors import SettingError
from lens.models.checkpoints.conversion.denoiser import gguf_kinds, gguf_tensor
from lens.models.checkpoints.conversion.formats import TEXT_ENCODER, Format
from lens.models.checkpoints.conversion.gguf_settings import (
    ARCHITECTURE,
    gpt_oss_settings,
    tokenizer_settings,
)
from lens.models.checkpoints.conversion.sources import (
    Source,
    is_in_blocks,
    plain_dtype,
    stored_shapes,
)
from lens.models.checkpoints.conversion.targets import Target, bytes_tensor, json_tensor
from lens.models.checkpoints.conversion.weights import (
    JointTensors,
    gguf_rows,
    matrices,
    mxfp4_tensors,
    nvfp4_tensors,
    plain_tensor,
    require_finite,
    require_inputs,
)
from lens.models.checkpoints.detect import TEXT_ENCODER_CONFIG_KEY, TOKENIZER_KEY
from lens.models.checkpoints.diffusers_folder import COMPONENT_LABELS, component_config, open_component
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
from lens.models.checkpoints.gpt_oss_layouts import (
    from_llama_cpp,
    from_quantized,
    join_mxfp4_experts,
    llama_cpp_name,
    text_encoder_config,
)
from lens.models.checkpoints.quantized_layers import open_weights_file
from lens.models.checkpoints.reader import (
    TORCH_DTYPES,
    LazyTensor,
    check_names_and_shapes,
    shapes_of,
)
from lens.models.checkpoints.writer import StreamedTensor
from lens.models.quantized.packed_weight import PackedSource, plain_format
from lens.models.shapes import text_encoder_shapes

LM_HEAD_NAME = "lm_head.weight"
MXFP4_CONFIG = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
    ],
}  # fmt: skip
"""What the published config.json says of the experts."""

Tensors = Mapping[str, LazyTensor]


def text_encoder_target(source: Path, name: str, layout: Format, tokenizer: bytes | None) -> Target:
    """Return what a text encoder is in a format, with the JSON of its tokenizer.

    Raises: CheckpointError for a source that does not fit; SettingError for a missing tokenizer.
    """
    tensors, config = open_text_encoder(source)
    with_head = LM_HEAD_NAME in tensors
    check_names_and_shapes(
        text_encoder_shapes(config, with_head=with_head),
        shapes_of(tensors),
        source=source,
        what=COMPONENT_LABELS["text_encoder"],
    )
    for key, tensor in tensors.items():
        if is_in_blocks(key, len(tensor.shape), name, TEXT_ENCODER):
            require_inputs(key, tensor.shape[1], layout.inputs, name)
    settings = json.dumps(config)
    if name.startswith("gguf-"):
        return Target(
            _gguf_tensors(tensors, name),
            settings=gpt_oss_settings(config)
            | tokenizer_settings(tokenizer, config["vocab_size"])
            | {TEXT_ENCODER_CONFIG_KEY: settings},
            architecture=ARCHITECTURE,
        )
    if not layout.suffix:
        files = {} if tokenizer is None or source.is_dir() else {"tokenizer.json": tokenizer}
        files |= _generation_config(source)
        dtype = plain_dtype(name, stored_shapes(Source(TEXT_ENCODER, source)))
        return Target(_folder_tensors(tensors, name, dtype), config=_config(config, name, dtype), files=files)
    if name == "nvfp4":
        if tokenizer is None:
            raise SettingError(
                "tokenizer", None, f"a tokenizer.json, as {name} has one inside and {source} has none",
                "Use --tokenizer FILE.",
            )  # fmt: skip
        target = _nvfp4_tensors(tensors)
    else:
        target = {key: plain_tensor(key, tensor, "BF16") for key, tensor in tensors.items()}
    if tokenizer is not None:
        target[TOKENIZER_KEY] = bytes_tensor(tokenizer)
    return Target(target, settings={"format": "pt", TEXT_ENCODER_CONFIG_KEY: settings})


def open_text_encoder(source: Path) -> tuple[dict[str, LazyTensor], dict[str, Any]]:
    """Return an encoder's tensors in transformers' layout, packed if they are quantized, and its config."""
    if source.is_dir():
        config = component_config(source)
        for key in ("quantization_config", "architectures", "dtype", "torch_dtype"):
            config.pop(key, None)
        tensors = join_mxfp4_experts(open_component(source, "text_encoder").tensors)
        if config.get("tie_word_embeddings"):
            tensors.pop(LM_HEAD_NAME, None)
        return tensors, config
    stored = open_weights_file(source)
    if source.suffix.lower() == GGUF_SUFFIX:
        tensors = from_llama_cpp(_with_plain_experts(stored.tensors), source=source)
    else:
        tensors = from_quantized(stored.tensors, source=source)
    return tensors, text_encoder_config(tensors, stored.metadata, source=source)


def _with_plain_experts(tensors: Tensors) -> dict[str, LazyTensor]:
    """Let experts in plain numbers be read one by one, as packed ones are."""
    return {
        key: tensor._replace(packed=PackedSource(plain_format(tensor.dtype), (tensor,), tensor.shape))
        if len(tensor.shape) == 3 and tensor.packed is None
        else tensor
        for key, tensor in tensors.items()
    }


def _expert_shape(stored: LazyTensor) -> tuple[int, int, int]:
    experts, inputs, outputs = stored.shape
    return experts, outputs, inputs


def _folder_tensors(tensors: Tensors, name: str, dtype: str) -> dict[str, StreamedTensor]:
    target = {}
    for key, tensor in tensors.items():
        if name == "mxfp4" and len(tensor.shape) == 3:
            parts = mxfp4_tensors(key, tensor, _expert_shape(tensor))
            target |= {f"{key}_{part}": value for part, value in parts.items()}
        else:
            target[key] = plain_tensor(key, tensor, dtype)
    return target


def _config(config: Mapping[str, Any], name: str, dtype: str) -> dict[str, Any]:
    published = {
        "architectures": ["LensGptOssEncoder"],
        "model_type": "gpt_oss",
        "dtype": TORCH_DTYPES[dtype],
    }
    quantization = {"quantization_config": MXFP4_CONFIG} if name == "mxfp4" else {}
    return published | dict(config) | quantization


def _generation_config(source: Path) -> dict[str, bytes]:
    path = source / "generation_config.json"
    return {path.name: path.read_bytes()} if path.is_file() else {}


def _nvfp4_tensors(tensors: Tensors) -> dict[str, StreamedTensor]:
    """Return the tensors of ComfyUI's file: names without `model.`, no LM head."""
    target = {}
    for key, tensor in tensors.items():
        own = re.sub(r"(experts\.\w+_proj)_bias$", r"\1.bias", key.removeprefix("model."))
        if len(tensor.shape) == 3:
            parts = nvfp4_tensors(key, tensor, _expert_shape(tensor))
            target |= {f"{own}.{part}": value for part, value in parts.items()}
            target[f"{own}.comfy_quant"] = json_tensor({"format": "nvfp4"})
        elif key != LM_HEAD_NAME:
            target[own] = plain_tensor(key, tensor, "BF16")
    return target


def _gguf_tensors(tensors: Tensors, name: str) -> dict[str, StreamedTensor]:
    """Return the tensors under llama.cpp's names, experts as (E, O, I), gate and up apart."""
    kind = name.removeprefix("gguf-").upper()
    blocks = [
        key for key, tensor in tensors.items() if is_in_blocks(key, len(tensor.shape), name, TEXT_ENCODER)
    ]
    kinds = gguf_kinds(tensors, blocks, kind)
    target: dict[str, StreamedTensor] = {}
    for key, tensor in tensors.items():
        if key.endswith("mlp.experts.gate_up_proj_bias"):
            target |= _split_bias(key, tensor)
        elif key.endswith("mlp.experts.gate_up_proj"):
            target |= _split_experts(key, tensor, kind)
        elif len(tensor.shape) == 3:
            read = lambda k=key, t=tensor: _expert_rows(k, t, kind)  # noqa: E731
            target[llama_cpp_name(key)] = StreamedTensor(_expert_shape(tensor), kind, read)
        else:
            is_small = key.endswith(("router.weight", "_bias"))  # F32 in llama.cpp's files
            target[llama_cpp_name(key)] = gguf_tensor(key, tensor, "F32" if is_small else kinds[key])
    return target


def _expert_rows(key: str, stored: LazyTensor, kind: str) -> Iterator[Tensor]:
    """Yield the rows of each expert in a number type. Shapes: (O, I), or (O, bytes of a row)."""
    dtypes = {"F16": torch.float16, "BF16": torch.bfloat16}
    if kind not in dtypes:
        yield from gguf_rows(key, stored, kind)
        return
    for matrix in matrices(stored, dtypes[kind]):
        yield require_finite(key, matrix, kind)


def _split_experts(key: str, stored: LazyTensor, kind: str) -> dict[str, StreamedTensor]:
    experts, outputs, inputs = _expert_shape(stored)

    def compute() -> Iterator[Sequence[Tensor]]:
        for rows in _expert_rows(key, stored, kind):
            yield rows[0::2].contiguous(), rows[1::2].contiguous()  # (M, ...) each

    joint = JointTensors(compute)
    return {
        llama_cpp_name(key, half): StreamedTensor((experts, outputs // 2, inputs), kind, joint.reader(index))
        for index, half in enumerate(("gate", "up"))
    }


def _split_bias(key: str, stored: LazyTensor) -> dict[str, StreamedTensor]:
    experts, outputs = stored.shape  # (E, 2 M)

    def half(index: int) -> Tensor:
        return stored.read()[:, index::2].to(torch.float32, copy=True)  # (E, M)

    return {
        llama_cpp_name(key, name): StreamedTensor(
            (experts, outputs // 2), "F32", lambda index=index: half(index)
        )
        for index, name in enumerate(("gate", "up"))
    }
