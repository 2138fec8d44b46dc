"""How many floating-point operations the denoiser takes, and what share of a card's peak a run reaches.

One formula for training, plans, benchmarks: matrix products and attention alone, a multiplication and an
addition being two operations; norms, rotations and modulation of tokens are left out, as is usual. Spec:
section 3. Letters: D width, F feed-forward width, I image tokens, T text tokens.
"""

from collections.abc import Mapping
from typing import Any

TRAINING_FACTOR = 3
"""Forward, and twice as much backward. What checkpointing computes again is not counted."""


def forward_flops(config: Mapping[str, Any], num_image_tokens: int, num_text_tokens: int) -> int:
    """Return the operations of one forward pass for one picture; `config` is the denoiser's."""
    dim, layers = config["inner_dim"], config["num_layers"]
    hidden = int(dim / 3 * 8)
    tokens = num_image_tokens + num_text_tokens
    projection_flops = 2 * (
        3 * dim * dim + dim * dim + 3 * dim * hidden
    )  # projections and feed-forward of a stream
    modulation = 2 * 2 * 6 * dim * dim                          # of both streams, once a picture
    attention_flops = 4 * tokens * dim                             # one query over all keys, and their values
    blocks = layers * (tokens * (projection_flops + attention_flops) + modulation)
    # Nothing reads the last block's text: it has no queries, no output and no feed-forward.
    blocks -= num_text_tokens * (projection_flops - 2 * 3 * dim * dim + attention_flops)
    num_features = len(config["selected_layer_index"])
    inputs = (
        num_image_tokens * config["in_channels"] + num_text_tokens * num_features * config["enc_hidden_dim"]
    )
    output = num_image_tokens * dim * config["patch_size"] ** 2 * config["out_channels"]
    time = 256 * dim + dim * dim + 2 * dim * dim                # its embedding, the last scale and shift
    return blocks + 2 * (inputs * dim + output + time)


def training_flops(config: Mapping[str, Any], num_image_tokens: int, num_text_tokens: int) -> int:
    """Return the useful operations of training on one picture."""
    return TRAINING_FACTOR * forward_flops(config, num_image_tokens, num_text_tokens)


def model_flops_utilization(
    flops: float, elapsed_s: float, peak_flops_per_s: float, num_gpus: int = 1
) -> float:
    """Return the share of the cards' peak that so many useful operations in so many seconds are."""
    return flops / (elapsed_s * peak_flops_per_s * num_gpus)
