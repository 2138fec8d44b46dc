"""Text features: what chosen blocks of a language model put out, on the way to its answer.

The model stops after the last block asked for and its LM head never runs; `generate` works on the same
weights. Knows nothing of templates or of what reads the features. Spec: section 4.
Letters: B batch, T tokens, hidden the width of the language model.
"""

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssForCausalLM

from lens.errors import SettingError

logger = logging.getLogger(__name__)

MASK_FUNCTIONS = {
    "full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask,
}  # fmt: skip


class HiddenStateExtractor:
    """The inner features of a language model of transformers, for a class of it to inherit from first."""

    model: Any
    """The language model without its head."""

    @torch.no_grad()
    def text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        layers: Sequence[int] = (5, 11, 17, 23),
        past_key_values: DynamicCache | None = None,
    ) -> list[Tensor]:
        """Return the outputs (residual stream) of zero-based blocks, in the order asked for.

        Right padding leaves the features of real tokens as they are: attention is causal. `after` is what
        `read` gave for the tokens before these; it may be used again.

        Shapes: ids and mask (B, T) -> one (B, T, hidden) a layer.
        Raises: SettingError for a layer that the model does not have.
        """
        num_layers = len(self.model.layers)
        if not layers or not all(0 <= layer < num_layers for layer in layers):
            raise SettingError("layers", tuple(layers), f"blocks between 0 and {num_layers - 1}")
        device = self._onload()
        mask = None if attention_mask is None or attention_mask.bool().all() else attention_mask.to(device)
        past = copy.deepcopy(past_key_values)  # blocks write into it
        captured = self._run_blocks(input_ids.to(device), mask, max(layers), set(layers), past)
        return [captured[layer] for layer in layers]

    @torch.no_grad()
    def prefill(self, input_ids: Tensor, layers: Sequence[int] = (5, 11, 17, 23)) -> DynamicCache:
        """Return what blocks up to the last of `layers` keep of tokens that others will follow.

        Shapes: ids (1, T).
        """
        past = DynamicCache(config=self.model.config)
        self._run_blocks(input_ids.to(self._onload()), None, max(layers), set(), past)
        return past

    def _run_blocks(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        last_layer: int,
        output_layers: set[int],
        past: DynamicCache | None,
    ) -> dict[int, Tensor]:
        # The blocks are called one by one: the library's own forward cannot stop early, and the last of its
        # hidden_states has the final norm applied, while Lens reads before it.
        model = self.model
        hidden_states = model.embed_tokens(input_ids)  # (B, T, hidden)
        start = 0 if past is None else past.get_seq_length()
        positions = torch.arange(start, start + hidden_states.shape[1], device=hidden_states.device)[
            None
        ]  # (1, T)
        mask_inputs = {
            "config": model.config,
            "inputs_embeds": hidden_states,
            "attention_mask": mask,
            "past_key_values": past,
        }
        layer_types = model.config.layer_types or []
        masks = {kind: MASK_FUNCTIONS[kind](**mask_inputs) for kind in set(layer_types)}
        rotary = model.rotary_emb(hidden_states, positions)
        captured: dict[int, Tensor] = {}
        for index in range(last_layer + 1):
            hidden_states = model.layers[index](
                hidden_states,
                attention_mask=masks[layer_types[index]],
                position_embeddings=rotary,
                position_ids=positions,
                past_key_values=past,
                use_cache=past is not None,
            )
            if index in output_layers:
                captured[index] = hidden_states
        return captured

    def _onload(self) -> torch.device:
        # Offloading hooks `forward`, which features do not go through: fetch the weights as the hook would.
        hook = getattr(self, "_hf_hook", None)
        if hook is not None and hasattr(hook, "pre_forward"):
            hook.pre_forward(self)
        execution_device = getattr(hook, "execution_device", None)
        return (
            torch.device(execution_device)
            if execution_device is not None
            else self.model.embed_tokens.weight.device
        )


class LensGptOssEncoder(HiddenStateExtractor, GptOssForCausalLM):
    """GPT-OSS with its inner features exposed; published checkpoints name this class."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model of a folder; experts stored in MXFP4 stay so where the machine has the kernels.

        Raises: MemoryNeedError where they have to be dequantised and do not fit.
        """
        if kwargs.get("quantization_config") is None:
            kwargs |= _mxfp4_load_kwargs(pretrained_model_name_or_path, kwargs)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if getattr(kwargs.get("quantization_config"), "dequantize", False):
            # The library keeps the names of what it unpacked, and would save plain weights as packed ones.
            model: Any = loaded[0] if isinstance(loaded, tuple) else loaded
            model._weight_conversions = []
        return loaded

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # The library looks for its decorator in the source of a class's own module, which this is not.
        return GptOssForCausalLM._can_set_experts_implementation()

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        # Grouped products need rows of whole 16 bytes in half precision; the library does not look.
        sizes = self.config.hidden_size, self.config.intermediate_size
        if requested_experts is None and any(size % 8 for size in sizes):
            return "eager"
        return super().get_correct_experts_implementation(requested_experts)


_LOCATION_KWARGS = ("subfolder", "revision", "cache_dir", "local_files_only", "token")
"""The settings of a load that say where its files are."""


def _mxfp4_load_kwargs(source: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what to add to the settings of a load: nothing unless experts are stored in MXFP4."""
    location = {key: settings[key] for key in _LOCATION_KWARGS if key in settings}
    config = settings.get("config") or GptOssConfig.from_pretrained(source, **location)
    stored = getattr(config, "quantization_config", None) or {}
    if not isinstance(stored, dict) or stored.get("quant_method") != "mxfp4":
        return {}
    from transformers.utils.quantization_config import Mxfp4Config

    from lens.models.quantized.mxfp4 import mxfp4_plan_for_device

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
    # Weights under the kernels cannot be moved later: they start where they run.
    return {} if device_map is not None else {"device_map": {"": "cuda"}}


def load_text_encoder_folder(
    folder: Path | str, torch_dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Any:
    """Return the text encoder of a folder, in evaluation mode, on a device (main memory where None).

    Raises: MemoryNeedError where it does not fit, SettingError for a language model of another kind.
    """
    device_kwargs = {} if device is None else {"device_map": {"": torch.device(device)}}
    return (
        _encoder_class(Path(folder))
        .from_pretrained(folder, dtype=torch_dtype or "auto", **device_kwargs)
        .eval()
    )


def _encoder_class(folder: Path) -> Any:
    """Return the class of the language model that a folder holds."""
    path = folder / "config.json"
    kind = json.loads(path.read_text()).get("model_type") if path.is_file() else "gpt_oss"
    if kind == "gpt_oss":
        return LensGptOssEncoder
    if kind == "qwen3":
        from lens.models.qwen3 import LensQwen3Encoder

        return LensQwen3Encoder
    raise SettingError("text_encoder", kind, "gpt_oss or qwen3 as model_type", f"It is in {path}.")
