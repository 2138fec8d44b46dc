"""Floating-point operations of the denoiser, and the model FLOPs utilization of a run.

Training, estimates and benchmarks share this formula. It counts matrix products and attention. A
multiplication and an addition are two operations. As usual, norms, rotations and modulation are left out.
Spec: section 3. Letters: D width, F feed-forward width, I image tokens, T text tokens.
"""

from collections.abc import Mapping
from typing import Any

TRAINING_FACTOR = 3
"""Forward passes that a training step counts as: the backward pass counts twice, recomputation not at all."""


def forward_flops(config: Mapping[str, Any], num_image_tokens: int, num_text_tokens: int) -> int:
    """Return the operations of one forward pass for one image; `config` is the denoiser's."""
    dim, layers = config["inner_dim"], config["num_layers"]
    hidden = int(dim / 3 * 8)
    tokens = num_image_tokens + num_text_tokens
    # Projections and feed-forward of a token, in its stream.
    projection_flops = 2 * (3 * dim * dim + dim * dim + 3 * dim * hidden)
    modulation = 2 * 2 * 6 * dim * dim                          # of both streams, once per image
    attention_flops = 4 * tokens * dim                             # one query over all keys, and their values
    blocks = layers * (tokens * (projection_flops + attention_flops) + modulation)
    # The last block updates no text: it has no text queries, no text output and no text feed-forward.
    blocks -= num_text_tokens * (projection_flops - 2 * 3 * dim * dim + attention_flops)
    num_features = len(config["selected_layer_index"])
    inputs = (
        num_image_tokens * config["in_channels"] + num_text_tokens * num_features * config["enc_hidden_dim"]
    )
    output = num_image_tokens * dim * config["patch_size"] ** 2 * config["out_channels"]
    time = 256 * dim + dim * dim + 2 * dim * dim                # its embedding, the last scale and shift
    return blocks + 2 * (inputs * dim + output + time)


def training_flops(config: Mapping[str, Any], num_image_tokens: int, num_text_tokens: int) -> int:
    """Return the useful operations of training on one image."""
    return TRAINING_FACTOR * forward_flops(config, num_image_tokens, num_text_tokens)


def model_flops_utilization(
    flops: float, elapsed_s: float, peak_flops_per_s: float, num_gpus: int = 1
) -> float:
    """Return the share of the GPUs' peak that so many useful operations in so many seconds reach."""
    return flops / (elapsed_s * peak_flops_per_s * num_gpus)
