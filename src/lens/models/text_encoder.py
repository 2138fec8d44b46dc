"""GPT-OSS as the text encoder, and the loading of a text encoder from a folder.

Knows nothing of prompt templates or of what reads the features. Spec: section 4.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssForCausalLM

from lens.errors import SettingError
from lens.models.hidden_states import HiddenStateExtractor

logger = logging.getLogger(__name__)


class LensGptOssEncoder(HiddenStateExtractor, GptOssForCausalLM):
    """GPT-OSS with the outputs of its blocks as text features; published checkpoints name this class."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model of a folder; experts in MXFP4 are kept so where the machine has the kernels.

        Raises: MemoryNeedError where they must be dequantized and do not fit.
        """
        if kwargs.get("quantization_config") is None:
            kwargs |= _mxfp4_load_kwargs(pretrained_model_name_or_path, kwargs)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if getattr(kwargs.get("quantization_config"), "dequantize", False):
            # The library remembers the packed names, and would save plain weights under them.
            model: Any = loaded[0] if isinstance(loaded, tuple) else loaded
            model._weight_conversions = []
        return loaded

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


_LOCATION_KWARGS = ("subfolder", "revision", "cache_dir", "local_files_only", "token")
"""The arguments of `from_pretrained` that say where the files are."""


def _mxfp4_load_kwargs(source: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return arguments to add to `from_pretrained`: none unless experts are stored in MXFP4."""
    location = {key: settings[key] for key in _LOCATION_KWARGS if key in settings}
    config = settings.get("config") or GptOssConfig.from_pretrained(source, **location)
    stored = getattr(config, "quantization_config", None) or {}
    if not isinstance(stored, dict) or stored.get("quant_method") != "mxfp4":
        return {}
    from transformers.utils.quantization_config import Mxfp4Config

    from lens.models.memory import mxfp4_plan_for_device

    device_map = settings.get("device_map")
    device = device_map.get("") if isinstance(device_map, dict) else device_map
    dtype = settings.get("dtype", settings.get("torch_dtype"))
    plan = mxfp4_plan_for_device(
        config.to_dict(),
        device=None if device == "auto" else device,
        bytes_per_value=dtype.itemsize if isinstance(dtype, torch.dtype) else 2,
    )
    logger.warning(plan.message)
    if not plan.is_native:
        return {"quantization_config": Mxfp4Config(dequantize=True)}
    # Weights of the kernels cannot be moved later, so they are loaded on their device.
    return {} if device_map is not None else {"device_map": {"": "cuda"}}


def load_text_encoder_folder(
    folder: Path | str, torch_dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Any:
    """Return the text encoder of a folder, in evaluation mode, on a device (main memory where None).

    Raises: MemoryNeedError where it does not fit; SettingError for another kind of language model.
    """
    device_kwargs = {} if device is None else {"device_map": {"": torch.device(device)}}
    return (
        _encoder_class(Path(folder))
        .from_pretrained(folder, dtype=torch_dtype or "auto", **device_kwargs)
        .eval()
    )


def _encoder_class(folder: Path) -> Any:
    """Return the class of the language model in a folder."""
    path = folder / "config.json"
    kind = json.loads(path.read_text()).get("model_type") if path.is_file() else "gpt_oss"
    if kind == "gpt_oss":
        return LensGptOssEncoder
    if kind == "qwen3":
        from lens.models.qwen3 import LensQwen3Encoder

        return LensQwen3Encoder
    raise SettingError("text_encoder", kind, "gpt_oss or qwen3 as model_type", f"It is in {path}.")
