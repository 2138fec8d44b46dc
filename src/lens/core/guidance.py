"""Classifier-free guidance with norm rescaling: it keeps the length of the conditional velocity.

Knows nothing of models or of how the two velocities are computed. Paper: Lens report, sampling.
Letters: B batch, I image tokens, C channels of a token.
"""

import torch
from torch import Tensor

from lens.errors import ShapeError


def cfg_norm_rescaled(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Return the guided velocity, with each token's vector rescaled to its length in `cond`.

    Without the rescaling, high scales oversaturate the image. A vector of length zero stays zero.

    Shapes: cond and uncond (B, I, C) -> (B, I, C), in the dtype of cond; computed in float32 or above.
    Raises: ShapeError unless the two have one shape.
    """
    if cond.shape != uncond.shape:
        shapes = f"{tuple(cond.shape)} and {tuple(uncond.shape)}"
        raise ShapeError(f"cond and uncond have shapes {shapes}, but they need to be the same.")
    if scale == 1:
        return cond
    compute_dtype = torch.promote_types(cond.dtype, torch.float32)
    conditional, unconditional = cond.to(compute_dtype), uncond.to(compute_dtype)
    guided = unconditional + scale * (conditional - unconditional)             # (B, I, C)
    cond_norm = torch.linalg.vector_norm(conditional, dim=-1, keepdim=True)    # (B, I, 1)
    guided_norm = torch.linalg.vector_norm(guided, dim=-1, keepdim=True)            # (B, I, 1)
    return (guided * (cond_norm / guided_norm.clamp_min(torch.finfo(compute_dtype).tiny))).to(cond.dtype)
