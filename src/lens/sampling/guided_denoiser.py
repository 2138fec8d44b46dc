"""Velocity with classifier-free guidance, and the known area in inpainting.

Knows nothing of prompts as text, pixels or solvers. Spec: section 5.
Letters: B images, I image tokens, C channels of an image token, h w latent cells.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.core.flow import interpolate
from lens.core.guidance import cfg_norm_rescaled
from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import draw_noise, generator_for
from lens.models.vae import resize_latents
from lens.models.velocity import compute_dtype, predict_token_velocity
from lens.sampling.inputs import sigmas_for_strength
from lens.sampling.prompt_embeds import PromptEmbeds


def predict_velocity_cfg(
    denoiser: Any,
    x: Tensor,
    sigma: float,
    cond: PromptEmbeds,
    uncond: PromptEmbeds,
    guidance_scale: float,
    latent_size: tuple[int, int],
    attention_kwargs: dict | None = None,
) -> Tensor:
    """Return the guided velocity of `cond` against `uncond`; at scale 1 only `cond` is computed.

    Runs two passes instead of one with twice the batch: an empty negative prompt then has no text tokens to
    compute, and a pass whose texts have one length needs no attention mask.

    Shapes: x (B, I, C) -> (B, I, C), float32.
    """
    t = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)  # (B,)

    def predict(prompt_embeds: PromptEmbeds, name: str) -> Tensor:
        where = {"timestep": sigma * 1000, "sigma": sigma}
        has_cache = getattr(denoiser, "is_cache_enabled", False)
        with denoiser.cache_context(name, **where) if has_cache else nullcontext():
            return predict_token_velocity(
                denoiser, x, t, prompt_embeds.features, prompt_embeds.mask, latent_sizes=[latent_size],
                dtype=compute_dtype(denoiser), attention_kwargs=attention_kwargs,
            )  # fmt: skip

    cond_velocity = predict(cond, "cond")
    if guidance_scale == 1:
        return cond_velocity
    uncond_velocity = predict(uncond, "uncond")
    return cfg_norm_rescaled(cond_velocity, uncond_velocity, guidance_scale)


class InpaintContext(NamedTuple):
    """The area of images that inpainting keeps."""

    clean: Tensor
    """(B, I, C) latents of the source images."""
    noise: Tensor
    """(B, I, C) the initial noise; with `clean` it gives the straight path of each image."""
    redraw_mask: Tensor
    """(B, I, 1) True for tokens that are redrawn, False for tokens that are kept."""

    def blend_known(self, x: Tensor, sigma: float) -> Tensor:
        """Return x with the kept tokens replaced by their point on the straight path at this noise level.

        Shapes: (B, I, C) -> (B, I, C).
        """
        t = torch.full((len(x),), sigma, device=x.device)
        return torch.where(self.redraw_mask, x, interpolate(self.clean, self.noise, t))


class InitialState(NamedTuple):
    """State at the first noise level."""

    x: Tensor
    """(B, I, C)"""
    sigmas: Tensor
    """(n + 1,), n steps"""
    inpaint: InpaintContext | None


def upscaled_state(
    pipeline: Any,
    latents: Tensor,
    latent_size: tuple[int, int],
    larger_size: tuple[int, int],
    num_steps: int,
    strength: float,
    seed: int,
) -> InitialState:
    """Return the state that draws finished latents of one image again at a larger size.

    The latents are resized, and as much noise is added as `strength` asks for. The noise is that of the seed.

    Shapes: latents (1, h*w, C); sizes (h, w).
    """
    grid = resize_latents(pipeline.vae, unpack_latents(latents, *latent_size), *larger_size)
    clean = pack_latents(grid).to(latents.device)  # (1, I, C)
    noise = draw_noise(clean.shape, [generator_for(seed, "upscale")], device=latents.device)
    sigmas = sigmas_for_strength(strength, clean.shape[1], num_steps)
    return InitialState(interpolate(clean, noise, sigmas[0].expand(1).to(clean.device)), sigmas, None)
