"""Qwen3 as the text encoder, in the place of GPT-OSS, for the paper's ablation model. Spec: section 7."""

from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from lens.models.hidden_states import HiddenStateExtractor


class LensQwen3Encoder(HiddenStateExtractor, Qwen3ForCausalLM):
    """Qwen3 with its inner features exposed; folders are read as Qwen published them."""
