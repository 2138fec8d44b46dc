"""Adds latent channels to a trained autoencoder, which at first decodes the same images.

The new channels begin with small random means; the decoder begins by ignoring them.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import Tensor

NEW_WEIGHT_SCALE = 0.5
"""Spread of the weights of new channels, as a share of that of the old ones."""
NEW_LOG_VARIANCE = -6.0
"""First log-variance of the new channels."""


@torch.no_grad()
def widen_latents(vae: Any, channels: int) -> Any:
    """Return an AutoencoderKLFlux2 with `channels` latent channels, of which the first are those of `vae`.

    Raises: ValueError for fewer channels than there are.
    """
    old = vae.config.latent_channels
    if channels < old:
        raise ValueError(f"{channels} latent channels are fewer than the {old} there are")
    wide: Any = AutoencoderKLFlux2.from_config({**vae.config, "latent_channels": channels})
    state = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    own = wide.state_dict()
    kept = torch.cat((torch.arange(old), channels + torch.arange(old)))  # means, then log-variances
    new = torch.arange(old, channels)
    for name in ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in"):
        for part in ("weight", "bias"):
            key = f"{name}.{part}"
            if own[key].shape != state[key].shape:
                own[key].zero_()
                _keep(own[key], state[key], name, kept, old)
                state[key] = own[key]
    state["encoder.conv_out.weight"][old:channels].normal_(std=_spread(vae.encoder.conv_out.weight, old))
    state["encoder.conv_out.bias"][channels + new] = NEW_LOG_VARIANCE
    for index in new:
        state["quant_conv.weight"][index, index] = 1
        state["quant_conv.weight"][channels + index, channels + index] = 1
        state["post_quant_conv.weight"][index, index] = 1
    for key, fill in (("bn.running_mean", 0.0), ("bn.running_var", 1.0)):
        patches = torch.full_like(own[key], fill)
        patches[: len(state[key])] = state[key]
        state[key] = patches
    wide.load_state_dict(state)
    return wide


def _keep(wide: Tensor, narrow: Tensor, name: str, kept: Tensor, old: int) -> None:
    """Copy the weights of the old channels, in place."""
    if name == "encoder.conv_out":
        wide[kept] = narrow
    elif name == "quant_conv" and wide.ndim > 1:
        wide[kept[:, None], kept] = narrow
    elif name == "quant_conv":
        wide[kept] = narrow
    elif name == "post_quant_conv":
        wide[(slice(old), slice(old)) if wide.ndim > 1 else slice(old)] = narrow
    else:
        wide[:, :old] = narrow


def _spread(weight: Tensor, old: int) -> float:
    return NEW_WEIGHT_SCALE * float(weight[:old].std())
