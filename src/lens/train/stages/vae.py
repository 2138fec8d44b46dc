"""The vae stage: trains an autoencoder of the FLUX.2 architecture on crops of the nano world."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lens.core.noise import generator_for
from lens.losses.autoencoder import reconstruction_loss
from lens.losses.base import LossOutput, StepStats
from lens.nano.world.crops import random_crop
from lens.train.devices import autocast, resolve_device
from lens.train.sample_grid import image_grid
from lens.train.settings.stages import VaeSettings
from lens.train.stages.latent_pruning import prune_unused_channels

FIRST_HELD_OUT_CROP = 2**31
"""First held-out crop; training uses earlier crops only."""


class VaeStage:
    """Trains encoder and decoder; the latent statistics are measured at export."""

    def __init__(self, settings: VaeSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        torch.manual_seed(settings.seed)
        self.model: Any = AutoencoderKLFlux2(**settings.config)
        if settings.start_from:
            self.model = AutoencoderKLFlux2.from_pretrained(settings.start_from)
        else:
            zero_init_residual_branches(self.model)
        self.model.to(self.device)

    def objective(self, step: int, index: int) -> LossOutput:
        settings = self.settings
        count = settings.batch_size // settings.micro_batches
        first = step * settings.batch_size + index * count
        pixels = self._crops(first, count)
        generator = generator_for(settings.seed, "vae/posterior", step, index)
        with autocast(self.device, settings.precision):
            posterior = self.model.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
            decoded = self.model.decode(posterior.mean + posterior.std * noise).sample
        loss_output = reconstruction_loss(
            pixels, decoded, posterior.mean, posterior.logvar,
            edge_weight=settings.edge_weight, kl_weight=settings.kl_weight,
        )  # fmt: skip
        return loss_output._replace(stats=StepStats(num_samples=count))

    def evaluate(self) -> dict[str, float]:
        pixels = self._crops(FIRST_HELD_OUT_CROP, 96)
        with autocast(self.device, self.settings.precision):
            decoded = self.model.decode(self.model.encode(pixels).latent_dist.mode()).sample.float()
        error = (decoded.clamp(-1, 1) - pixels).square().flatten(1).mean(1)
        return {"psnr_db": float(-10 * (error / 4).log10().mean())}

    def sample_grid(self):
        pixels = self._crops(FIRST_HELD_OUT_CROP, 16)
        with autocast(self.device, self.settings.precision):
            decoded = self.model.decode(self.model.encode(pixels).latent_dist.mode()).sample.float()
        return image_grid(torch.stack((pixels, decoded), dim=1).flatten(0, 1), columns=8)

    @torch.no_grad()
    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        pixels = self._crops(FIRST_HELD_OUT_CROP + 1000, 512)
        copy: Any = AutoencoderKLFlux2.from_config(self.model.config)
        copy.load_state_dict(state)
        pruned = prune_unused_channels(copy.to(self.device).eval(), pixels[:64])
        measure_latent_statistics(pruned, pixels)
        pruned.save_pretrained(folder / "vae")

    def _crops(self, first: int, count: int) -> Tensor:
        crops = [
            random_crop(np.random.default_rng((self.settings.seed, first + item)), self.settings.side_px)
            for item in range(count)
        ]
        return torch.from_numpy(np.stack(crops)).to(self.device)


def zero_init_residual_branches(vae: nn.Module) -> None:
    """Zero the last convolution of every residual branch, so that training starts near a linear network."""
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            for parameter in module.conv2.parameters():
                nn.init.zeros_(parameter)


def measure_latent_statistics(vae: Any, pixels: Tensor) -> None:
    """Set the BatchNorm statistics with which the pipeline normalizes latents, from images of the world."""
    from lens.core.latents import patchify

    latents = torch.cat([patchify(vae.encode(part).latent_dist.mode()) for part in pixels.split(32)])
    vae.bn.running_mean.copy_(latents.mean((0, 2, 3)))
    vae.bn.running_var.copy_(latents.var((0, 2, 3)))
