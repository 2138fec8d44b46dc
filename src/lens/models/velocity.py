"""The denoiser as a velocity function: the only calls of its forward pass outside its own module.

Knows nothing of guidance, sampling or losses. Spec: section 5.
Letters: B batch, P images of a packed sequence, C channels of an image token, h and w latent cells, I image
tokens, L captured layers, T text tokens, E width of a text feature.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lens.core.latents import pack_latents, unpack_latents


def predict_velocity(
    denoiser: Any, latents: Any, t: Tensor, text_features: Sequence[Any], text_mask: Tensor | None = None
) -> Any:
    """Return the denoiser's velocity at noisy latents, in float32.

    A tensor is a batch of one size. A list is one packed sequence of images of any sizes.

    Shapes: latents (B, C, h, w), t (B,), text_features L of (B, T, E), text_mask (B, T) -> (B, C, h, w).
        Of a list: latents P of (C, h, w), t (P,), text_features P of L of (T, E), no mask -> P of (C, h, w).
    """
    if isinstance(latents, Tensor):
        h, w = latents.shape[2:]
        tokens = predict_token_velocity(
            denoiser, pack_latents(latents), t, text_features, text_mask, latent_sizes=[(h, w)]
        )
        return unpack_latents(tokens, h, w)                                                     # (B, C, h, w)
    sizes = [(one.shape[1], one.shape[2]) for one in latents]
    image_tokens = [pack_latents(one[None])[0] for one in latents]                               # P of (I, C)
    velocities = predict_token_velocity(denoiser, image_tokens, t, text_features, latent_sizes=sizes)
    pairs = zip(velocities, sizes, strict=True)
    return [unpack_latents(one[None], h, w)[0] for one, (h, w) in pairs]                      # P of (C, h, w)


def predict_token_velocity(
    denoiser: Any,
    image_tokens: Any,
    t: Tensor,
    text_features: Sequence[Any],
    text_mask: Tensor | None = None,
    *,
    latent_sizes: Sequence[tuple[int, int]],
    dtype: torch.dtype | None = None,
    attention_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Return the denoiser's velocity at noisy image tokens, in float32.

    A tensor is a batch of one size, a list is a packed sequence. With a `dtype`, the denoiser gets the tokens
    in it; without one it gets them as they are, for autocast.

    Shapes: as in `predict_velocity`, with tokens (B, I, C) -> (B, I, C), and P of (I, C) -> P of (I, C);
        latent_sizes one (h, w) of a batch, P of a packed sequence.
    """
    is_batch = isinstance(image_tokens, Tensor)
    if dtype is not None:
        image_tokens = image_tokens.to(dtype) if is_batch else [one.to(dtype) for one in image_tokens]
    velocity = denoiser(
        hidden_states=image_tokens,
        encoder_hidden_states=text_features,
        encoder_hidden_states_mask=text_mask,
        timestep=t,
        img_shapes=[(1, h, w) for h, w in latent_sizes],
        attention_kwargs=attention_kwargs,
        return_dict=False,
    )[0]
    return velocity.float() if is_batch else [one.float() for one in velocity]


def compute_dtype(denoiser: Any) -> torch.dtype:
    """Return the dtype that the denoiser computes in; packed weights (float8, integers) go with bfloat16."""
    dtype = denoiser.dtype
    return dtype if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else torch.bfloat16
