"""The vae stage: trains an autoencoder of the FLUX.2 architecture on crops of the nano world."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lens.core.latents import patchify
from lens.core.noise import generator_for
from lens.losses.autoencoder import reconstruction_loss
from lens.losses.base import LossOutput, StepStats
from lens.nano.world.crops import random_crop
from lens.nano.world.full_scenes import random_full_scene
from lens.nano.world.scenes import draw_scene
from lens.train.devices import autocast, resolve_device
from lens.train.sample_grid import image_grid
from lens.train.settings.stages import VaeSettings
from lens.train.stages.latent_pruning import prune_unused_channels
from lens.train.stages.latent_widening import widen_latents

FIRST_HELD_OUT_CROP = 2**31
"""First held-out crop; training uses earlier crops only."""


class VaeStage:
    """Trains encoder and decoder; the latent statistics are measured at export.

    With a frozen encoder the decoder alone is trained, and the statistics stay as they are.
    """

    def __init__(self, settings: VaeSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        torch.manual_seed(settings.seed)
        self.model: Any = AutoencoderKLFlux2(**settings.config)
        if settings.start_from:
            self.model = AutoencoderKLFlux2.from_pretrained(settings.start_from)
            if settings.latent_channels:
                self.model = widen_latents(self.model, settings.latent_channels)
        else:
            zero_init_residual_branches(self.model)
        if settings.frozen_encoder:
            for part in (self.model.encoder, self.model.quant_conv):
                part.requires_grad_(False)
        self.model.to(self.device, memory_format=torch.channels_last)

    def objective(self, step: int, index: int) -> LossOutput:
        settings = self.settings
        count = settings.batch_size // settings.micro_batches
        first = step * settings.batch_size + index * count
        pixels = self._training_pixels(first, count)
        generator = generator_for(settings.seed, "vae/posterior", step, index)
        with autocast(self.device, settings.precision):
            posterior = self.model.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
            decoded = self.model.decode(posterior.mean + posterior.std * noise).sample
        loss_output = reconstruction_loss(
            pixels, decoded, posterior.mean, posterior.logvar,
            edge_weight=settings.edge_weight, kl_weight=settings.kl_weight,
        )  # fmt: skip
        return loss_output._replace(stats=StepStats(num_samples=len(pixels)))

    def evaluate(self) -> dict[str, float]:
        """Return the quality of reconstruction of held-out crops, and of scenes if these are trained on."""
        metrics = {"psnr_db": self._psnr_db(self._crops(FIRST_HELD_OUT_CROP, 96))}
        for side_px in self.settings.scene_sides_px if self.settings.scene_share else ():
            metrics[f"psnr_db/{side_px}px"] = self._psnr_db(self._scenes(FIRST_HELD_OUT_CROP, 24, side_px))
        return metrics

    def sample_grid(self):
        pixels = self._crops(FIRST_HELD_OUT_CROP, 16)
        with autocast(self.device, self.settings.precision):
            decoded = self.model.decode(self.model.encode(pixels).latent_dist.mode()).sample.float()
        return image_grid(torch.stack((pixels, decoded), dim=1).flatten(0, 1), columns=8)

    def _psnr_db(self, pixels: Tensor) -> float:
        """Return the mean peak signal-to-noise ratio of images (B, 3, H, W) after encoding and decoding."""
        with autocast(self.device, self.settings.precision):
            latents = (self.model.encode(part).latent_dist.mode() for part in pixels.split(8))
            decoded = torch.cat([self.model.decode(part).sample for part in latents])
        error = (decoded.float().clamp(-1, 1) - pixels).square().flatten(1).mean(1)
        return float(-10 * (error / 4).log10().mean())

    @torch.no_grad()
    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        copy: Any = AutoencoderKLFlux2.from_config(self.model.config)
        copy.load_state_dict(state)
        if self.settings.frozen_encoder:  # its channels and statistics are those of the latents in use
            copy.save_pretrained(folder / "vae")
            return
        pixels = self._crops(FIRST_HELD_OUT_CROP + 1000, 512)
        pruned = prune_unused_channels(copy.to(self.device).eval(), pixels[:64])
        measure_latent_statistics(pruned, pixels)
        pruned.save_pretrained(folder / "vae")

    def _training_pixels(self, first: int, count: int) -> Tensor:
        """Return crops, or scenes of one side with about as many pixels, as the number of the first decides.

        Shapes: (count, 3, side, side), or fewer images of a larger side.
        """
        rng = np.random.default_rng((self.settings.seed, first, 1))
        if rng.random() >= self.settings.scene_share:
            return self._crops(first, count)
        side_px = int(rng.choice(self.settings.scene_sides_px))
        return self._scenes(first, max(1, count * self.settings.side_px**2 // side_px**2), side_px)

    def _scenes(self, first: int, count: int, side_px: int) -> Tensor:
        scenes = [
            random_full_scene(np.random.default_rng([self.settings.seed, first + item]), side_px, side_px)
            for item in range(count)
        ]
        return torch.from_numpy(np.stack([draw_scene(scene) for scene in scenes])).to(self.device)

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
    latents = torch.cat([patchify(vae.encode(part).latent_dist.mode()) for part in pixels.split(32)])
    vae.bn.running_mean.copy_(latents.mean((0, 2, 3)))
    vae.bn.running_var.copy_(latents.var((0, 2, 3)))
