"""GPT-OSS as the text encoder, and the loading of text encoders from folders and single files.

Published checkpoints name the class. Experts in 4 bits stay packed unless the device has kernels for them.
Knows nothing of prompt templates or of what reads the features. Spec: sections 4 and 6.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssForCausalLM

from lens.errors import LensError, SettingError
from lens.models.checkpoints.diffusers_folder import (
    COMPONENT_LABELS,
    check_component,
    open_component,
    resolve_component_folder,
)
from lens.models.checkpoints.gpt_oss_layouts import (
    join_mxfp4_experts,
    open_text_encoder_file,
    text_encoder_config,
)
from lens.models.checkpoints.module_loader import init_empty, load_state_dict_strict, one_at_a_time
from lens.models.checkpoints.reader import TORCH_DTYPES, LazyTensor, read_json
from lens.models.hidden_states import HiddenStateExtractor

logger = logging.getLogger(__name__)

LM_HEAD_NAME = "lm_head.weight"
EMBEDDING_NAME = "model.embed_tokens.weight"
MAPPED_ABOVE_BYTES = 2_000_000_000
"""Size of a folder's weights above which they stay views of their files."""


class LensGptOssEncoder(HiddenStateExtractor, GptOssForCausalLM):
    """GPT-OSS with the outputs of its blocks as text features; published checkpoints name this class."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model of a folder or a hub id; experts in MXFP4 stay packed, whatever the device.

        Kernels compute with them where the machine has some; elsewhere each expert is dequantized at use.
        """
        if kwargs.get("quantization_config") is not None or not _is_mxfp4(
            pretrained_model_name_or_path, kwargs
        ):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        device_map = kwargs.get("device_map")
        device = device_map.get("") if isinstance(device_map, dict) else device_map
        device = None if device == "auto" else device
        dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
        if _plan(_config(pretrained_model_name_or_path, kwargs), device, dtype).how == "native":
            # Weights of the kernels cannot be moved later, so they are loaded on their device.
            on_device: Any = {} if device_map is not None else {"device_map": {"": "cuda"}}
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs, **on_device)
        model = _load_mapped(_local_folder(pretrained_model_name_or_path, kwargs), dtype)
        return model if device is None else model.to(device)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # The library searches for its decorator in the source of a class's module, and this is another.
        return GptOssForCausalLM._can_set_experts_implementation()

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        # Grouped products need rows of a multiple of 16 bytes; the library does not check that.
        sizes = self.config.hidden_size, self.config.intermediate_size
        if requested_experts is None and any(size % 8 for size in sizes):
            return "eager"
        return super().get_correct_experts_implementation(requested_experts)


@one_at_a_time
def load_text_encoder(
    path: str | Path,
    torch_dtype: torch.dtype | str | None = torch.bfloat16,
    config: Mapping[str, Any] | None = None,
    *,
    device: torch.device | str | None = None,
    keep_packed: bool = True,
    keep_stored: bool = False,
) -> Any:
    """Return the text encoder of a folder, a .safetensors file or a .gguf file, in eval mode.

    Weights in 4 and 8 bits stay packed, and are dequantized when they are used: GPT-OSS-20B then takes
    about 13 GB of mapped memory, not 42. `keep_stored` keeps matrices in another dtype as stored too.
    Raises: CheckpointError that names what does not fit, and what the file probably is.
    """
    path = Path(path)
    if path.is_dir():
        folder = resolve_component_folder(path, "text_encoder")
        check_component(folder, "text_encoder")
        return load_text_encoder_folder(
            folder, torch_dtype, device, keep_packed=keep_packed, keep_stored=keep_stored
        )
    dtype = torch_dtype if isinstance(torch_dtype, torch.dtype) else torch.bfloat16
    stored = open_text_encoder_file(path, dtype)
    settings = dict(config or text_encoder_config(stored.tensors, stored.metadata, source=path))
    model = _load_tensors(GptOssConfig(**settings), stored.tensors, dtype, path, keep_packed, keep_stored)
    return model if device is None else model.to(device)


def load_text_encoder_folder(
    folder: Path | str,
    torch_dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    *,
    keep_packed: bool = True,
    keep_stored: bool = False,
) -> Any:
    """Return the text encoder of a folder, in evaluation mode, on a device.

    None is main memory, or the GPU for experts in MXFP4 where it has kernels for them, as those cannot move.
    Raises: MemoryNeedError where it does not fit; SettingError for another kind of language model.
    """
    folder = Path(folder)
    encoder_class = _encoder_class(folder)
    if encoder_class is LensGptOssEncoder and _is_mapped(folder, keep_packed):
        is_packed = _is_mxfp4(folder, {}) and keep_packed
        if not is_packed or _plan(_config(folder, {}), device, torch_dtype).how != "native":
            model = _load_mapped(folder, torch_dtype, keep_packed, keep_stored)
            return model if device is None else model.to(device)
    device_kwargs: dict[str, Any] = {} if device is None else {"device_map": {"": torch.device(device)}}
    return encoder_class.from_pretrained(folder, dtype=torch_dtype or "auto", **device_kwargs).eval()


def _is_mapped(folder: Path, keep_packed: bool) -> bool:
    """Return whether a GPT-OSS is loaded as views of its files: in MXFP4, large, or without an LM head.

    The library would draw a missing LM head at random.
    """
    if _is_mxfp4(folder, {}):
        return True
    if not _config(folder, {}).tie_word_embeddings:
        stored = open_component(folder, "text_encoder").tensors if any(folder.glob("*.safetensors")) else {}
        if stored and LM_HEAD_NAME not in stored:
            return True
    files = folder.glob("*.safetensors")
    return sum(file.stat().st_size for file in files) > MAPPED_ABOVE_BYTES


def _load_mapped(
    folder: Path,
    torch_dtype: torch.dtype | str | None,
    keep_packed: bool = True,
    keep_stored: bool = False,
) -> Any:
    """Return the encoder of a folder as views of its files."""
    from transformers import GenerationConfig

    tensors = open_component(folder, "text_encoder").tensors
    dtype = torch_dtype
    if not isinstance(dtype, torch.dtype):
        dtype = getattr(torch, TORCH_DTYPES[tensors[EMBEDDING_NAME].dtype])
    config: Any = GptOssConfig.from_pretrained(folder)
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config  # saved again, the weights are plain
    joined = join_mxfp4_experts(tensors, dtype)
    model = _load_tensors(config, joined, dtype, folder, keep_packed, keep_stored)
    model.name_or_path = str(folder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _load_tensors(
    config: GptOssConfig,
    tensors: Mapping[str, LazyTensor],
    dtype: torch.dtype,
    source: Path,
    keep_packed: bool,
    keep_stored: bool,
) -> Any:
    """Return an encoder with these tensors; one without an LM head encodes, but does not generate."""
    model = init_empty(lambda: LensGptOssEncoder(config), source)
    if config.tie_word_embeddings:
        tensors = {name: tensor for name, tensor in tensors.items() if name != LM_HEAD_NAME}
    if LM_HEAD_NAME not in tensors:
        model.lm_head = MissingLMHead(source)  # type: ignore[assignment]
    load_state_dict_strict(
        model,
        tensors,
        dtype,
        source=source,
        what=COMPONENT_LABELS["text_encoder"],
        keep_packed=keep_packed,
        keep_stored=keep_stored,
    )
    if config.tie_word_embeddings:
        embedding = model.model.embed_tokens
        model.lm_head = nn.Linear(
            embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta"
        )
        model.lm_head.weight = embedding.weight
    return model


class MissingLMHead(nn.Module):
    """The LM head of a file that has none: text features do not use it, `generate` raises an error."""

    def __init__(self, source: object):
        super().__init__()
        self.source = source

    def forward(self, *_: Any) -> Tensor:
        raise LensError(f"{self.source} has no LM head, so it can encode prompts but not generate text. "
                        "For that, load the text encoder of a model folder.")  # fmt: skip


_LOCATION_KWARGS = ("subfolder", "revision", "cache_dir", "local_files_only", "token")
"""The arguments of `from_pretrained` that say where the files are."""


def _config(source: Any, settings: Mapping[str, Any]) -> GptOssConfig:
    location = {key: settings[key] for key in _LOCATION_KWARGS if key in settings}
    return settings.get("config") or GptOssConfig.from_pretrained(source, **location)


def _is_mxfp4(source: Any, settings: Mapping[str, Any]) -> bool:
    """Return whether the experts of a folder or a hub id are stored in MXFP4."""
    stored = getattr(_config(source, settings), "quantization_config", None) or {}
    return isinstance(stored, dict) and stored.get("quant_method") == "mxfp4"


def _plan(config: GptOssConfig, device: Any, dtype: Any) -> Any:
    from lens.models.memory import mxfp4_plan_for_device

    bytes_per_value = dtype.itemsize if isinstance(dtype, torch.dtype) else 2
    plan = mxfp4_plan_for_device(config.to_dict(), device, bytes_per_value)
    logger.info(plan.message)
    return plan


def _local_folder(source: Any, settings: Mapping[str, Any]) -> Path:
    """Return the folder of a source on this machine; files of a hub id are downloaded."""
    inside = settings.get("subfolder") or ""
    if Path(source).is_dir():
        return Path(source) / inside
    from huggingface_hub import snapshot_download

    location = {
        key: settings[key]
        for key in ("revision", "cache_dir", "local_files_only", "token")
        if key in settings
    }
    front = f"{inside}/" if inside else ""
    patterns = [f"{front}*.json", f"{front}*.safetensors"]
    return Path(snapshot_download(str(source), allow_patterns=patterns, **location)) / inside


def _encoder_class(folder: Path) -> Any:
    """Return the class of the language model in a folder."""
    path = folder / "config.json"
    kind = read_json(path).get("model_type") if path.is_file() else "gpt_oss"
    if kind == "gpt_oss":
        return LensGptOssEncoder
    if kind == "qwen3":
        from lens.models.qwen3 import LensQwen3Encoder

        return LensQwen3Encoder
    raise SettingError("text_encoder", kind, "gpt_oss or qwen3 as model_type", f"It is in {path}.")
