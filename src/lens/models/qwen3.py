"""Qwen3 as the text encoder instead of GPT-OSS, for the paper's ablation. Spec: section 7."""

from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from lens.models.hidden_states import HiddenStateExtractor


class LensQwen3Encoder(HiddenStateExtractor, Qwen3ForCausalLM):
    """Qwen3 with the outputs of its blocks as text features; it loads the folders that Qwen published."""
