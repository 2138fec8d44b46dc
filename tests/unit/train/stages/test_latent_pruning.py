"""Taking unused channels out of an autoencoder changes its latents' number, not its pictures."""

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from tiny_models import tiny_vae

from lens.train.stages.latent_pruning import prune_unused_channels


def vae_with_unused(*channels: int) -> AutoencoderKLFlux2:
    """Return a tiny VAE of 4 latent channels, those given with the posterior of the prior."""
    vae = tiny_vae()
    with torch.no_grad():
        for channel in range(4):
            is_unused = channel in channels
            vae.quant_conv.weight[4 + channel] = 0
            vae.quant_conv.bias[4 + channel] = 0.0 if is_unused else -8.0  # log-variance
            if is_unused:
                vae.quant_conv.weight[channel] = 0
                vae.quant_conv.bias[channel] = 0
    return vae


def test_the_inner_picture_stays_the_same_without_the_unused_channels():
    vae = vae_with_unused(1, 3)
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small = prune_unused_channels(vae, pixels)
    assert small.config.latent_channels == 2
    with torch.no_grad():
        latents, kept = vae.encode(pixels).latent_dist.mode(), small.encode(pixels).latent_dist.mode()
        torch.testing.assert_close(kept, latents[:, [0, 2]], atol=1e-5, rtol=1e-4)
        vae.post_quant_conv.bias.zero_()  # padded cells would differ
        small = prune_unused_channels(vae, pixels)
        torch.testing.assert_close(
            small.decode(kept).sample, vae.decode(latents).sample, atol=1e-4, rtol=1e-3
        )


def test_an_autoencoder_that_uses_all_its_channels_or_none_yet_is_left_alone():
    pixels = torch.zeros(1, 3, 32, 32)
    for vae in (vae_with_unused(), vae_with_unused(0, 1, 2, 3)):
        assert prune_unused_channels(vae, pixels) is vae
