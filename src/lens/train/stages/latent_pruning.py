"""Removes the latent channels of a trained autoencoder that its KL term has switched off.

A channel whose posterior is as wide as the prior carries no information. Normalized latents would still scale
it to unit variance, and the denoiser would have to learn it. Without it the decoded images are the same.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import Tensor

UNUSED_CHANNEL_STD = 0.5
"""Least mean posterior standard deviation of an unused channel; used channels stay below 0.1."""


@torch.no_grad()
def prune_unused_channels(vae: Any, pixels: Tensor) -> Any:
    """Return the AutoencoderKLFlux2 with only the latent channels that it uses on these images.

    The two 1x1 convolutions next to the latents are folded into their neighbours. A folded bias differs only
    at the outermost latent cells, where the neighbouring convolution is padded.

    Shapes: pixels (N, 3, H, W) in [-1, 1].
    """
    posterior = vae.encode(pixels).latent_dist
    used_channels = torch.nonzero(posterior.std.mean((0, 2, 3)) < UNUSED_CHANNEL_STD).flatten()         # (k,)
    channels = vae.config.latent_channels
    if len(used_channels) in (0, channels):  # none is used yet if a run stopped in its first steps
        return vae
    pruned: Any = AutoencoderKLFlux2.from_config({**vae.config, "latent_channels": len(used_channels)})
    pruned.to(pixels.device)
    state = {name: tensor for name, tensor in vae.state_dict().items() if not name.startswith("bn.")}
    moments = torch.cat((used_channels, used_channels + channels))                      # means, log-variances
    out, quant = vae.encoder.conv_out, vae.quant_conv.weight[moments, :, 0, 0]                # (2k, 2c)
    state["encoder.conv_out.weight"] = torch.einsum("ki,i...->k...", quant, out.weight)
    state["encoder.conv_out.bias"] = quant @ out.bias + vae.quant_conv.bias[moments]
    into, unquant = vae.decoder.conv_in, vae.post_quant_conv.weight[..., 0, 0]                # (c, c)
    state["decoder.conv_in.weight"] = torch.einsum("dcyx,ck->dkyx", into.weight, unquant[:, used_channels])
    state["decoder.conv_in.bias"] = into.bias + into.weight.sum((2, 3)) @ vae.post_quant_conv.bias
    for name, size in (("quant_conv", 2 * len(used_channels)), ("post_quant_conv", len(used_channels))):
        state[f"{name}.weight"] = torch.eye(size, device=pixels.device)[:, :, None, None]
        state[f"{name}.bias"] = torch.zeros(size, device=pixels.device)
    missing, unexpected = pruned.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("bn.") for name in missing)
    return pruned.eval()
