"""Settings of a GGUF file of GPT-OSS, as llama.cpp reads them: the model's sizes and its tokenizer."""

import json
from collections.abc import Mapping
from typing import Any

from lens.errors import CheckpointError, first_line

ARCHITECTURE = "gpt-oss"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
"""Types of tokens."""


def gpt_oss_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of a model by llama.cpp's names; whole numbers are its uint32, others its float32."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    sizes = {
        "vocab_size": config["vocab_size"],
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "expert_feed_forward_length": config["intermediate_size"],
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.sliding_window": config["sliding_window"],
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-5)),
        "rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta", 150000.0)),
    }
    if rope.get("rope_type") == "yarn":
        sizes |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": rope.get("original_max_position_embeddings", 4096),
        }
    named = {f"{ARCHITECTURE}.{name}": value for name, value in sizes.items()}
    return {"general.quantization_version": 2} | named


def tokenizer_settings(tokenizer: bytes | None, vocab_size: int) -> dict[str, Any]:
    """Return the vocabulary, merges and token types of a tokenizer.json; empty without one."""
    if tokenizer is None:
        return {}
    try:
        return _tokenizer_settings(json.loads(tokenizer), vocab_size)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"The tokenizer has no vocabulary that can be read ({what}).") from error


def _tokenizer_settings(values: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    ids: dict[str, int] = dict(values["model"]["vocab"])
    added = {token["content"]: token for token in values.get("added_tokens", ())}
    ids |= {content: token["id"] for content, token in added.items()}
    size = max(vocab_size, *(number + 1 for number in ids.values()))
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [_UNUSED] * size
    for content, number in ids.items():
        tokens[number], types[number] = content, _NORMAL
        if content in added:
            types[number] = _CONTROL if added[content]["special"] else _USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in values["model"]["merges"]]
    settings: dict[str, Any] = {
        "model": "gpt2", "pre": "gpt-4o", "tokens": tokens, "token_type": types, "merges": merges,
    }  # fmt: skip
    roles = {"bos": "<|startoftext|>", "eos": "<|return|>", "padding": "<|endoftext|>"}
    settings |= {f"{role}_token_id": ids[token] for role, token in roles.items() if token in ids}
    return {f"tokenizer.ggml.{name}": value for name, value in settings.items()}
