"""Memory that training takes of each GPU: weights, optimizer state, gathered blocks, activations.

Estimates, without torch. Spec: section 8. Letters: D width of the denoiser.
"""

from collections.abc import Mapping
from typing import Any

GIB = 2**30


def training_state_bytes(num_parameters: int, num_optimized: int, num_gpus: int) -> dict[str, float]:
    """Return the bytes that training keeps beside the weights, by part, over all GPUs.

    `num_parameters` are trained at one time. The optimizer has state for `num_optimized`.
    """
    return {
        "gradients": 4 * num_parameters,
        "optimizer": 8 * num_optimized,
        "average": 4 * num_parameters,
        # Autocast keeps a bf16 copy of each weight from its first use in a pass to the last.
        "copies in bf16": 2 * num_parameters if num_gpus == 1 else 0,
    }


def memory_gib_per_gpu(
    sharded_bytes: Mapping[str, float], num_gpus: int, block_parameters: float, activation_bytes: float
) -> dict[str, float]:
    """Return the memory of one GPU in GiB, by part."""
    sizes_gib = {name: size / num_gpus / GIB for name, size in sharded_bytes.items()}
    # Two blocks at a time are gathered: the one that computes and the one that is fetched.
    sizes_gib["gathered blocks"] = (4 * block_parameters * 2 if num_gpus > 1 else 0) / GIB
    sizes_gib["activations"] = activation_bytes / GIB
    return sizes_gib


def activation_bytes_per_token(
    config: Mapping[str, Any], checkpointing: str, is_lora: bool, num_graphs: int = 1
) -> float:
    """Return the activations of a token in all blocks, for so many graphs at once, at the peak of a step."""
    dim = config["inner_dim"]
    saved_bytes = num_graphs * config["num_layers"] * saved_bytes_per_token(dim, checkpointing, is_lora)
    # The backward pass recomputes one block at a time, in full.
    return saved_bytes + (0 if checkpointing == "none" else saved_bytes_per_token(dim, "none"))


def saved_bytes_per_token(dim: int, checkpointing: str, is_lora: bool = False) -> float:
    """Return the bytes that one block saves of a token for the backward pass, with its inputs.

    Without checkpointing it saves the inputs and outputs of the two norms, those of the five products,
    queries, keys and values before and after norm and rotation, and the two halves of the feed-forward with
    their product. Norms and rotations are float32, everything else is bfloat16. Selective checkpointing saves
    the outputs of products and of attention; with LoRA also those of the adapters.
    """
    hidden = int(dim / 3 * 8)
    if checkpointing == "full":
        return 2 * dim
    if checkpointing == "selective":
        products = 3 * dim + dim + 2 * hidden + dim
        return 2 * (dim + dim + products * (2 if is_lora else 1))
    return 2 * (2 * dim + 2 * dim + 3 * dim + 2 * dim + 2 * dim + 2 * dim + 4 * hidden) + 4 * 4 * dim
