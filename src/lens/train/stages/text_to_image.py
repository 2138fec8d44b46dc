"""The denoiser stage: trains a denoiser on captioned images, fully or by LoRA.

It starts from scratch or from a model. Images of all sizes are packed by a token budget. Spec: section 8.
Letters: P images of a pack, C channels of a latent cell, h and w latent cells, L captured layers, T text
tokens, E their width.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lens.core.noise import generator_for
from lens.core.schedule import logit_normal_times, training_mu
from lens.data.image_text_dataset import image_text_samples
from lens.errors import SettingError
from lens.losses.base import LossOutput, StepStats
from lens.losses.flow_matching import packed_flow_matching_errors
from lens.models.checkpoints.registry import resolve_model
from lens.models.checkpoints.writer import clear_name_or_path
from lens.models.denoiser import LensTransformer2DModel
from lens.models.velocity import predict_velocity
from lens.sampling.pipeline import LensPipeline
from lens.train.activation_checkpointing import apply_activation_checkpointing
from lens.train.cost.flops import training_flops
from lens.train.cost.from_recipe import run_spec
from lens.train.cost.training import check_memory
from lens.train.data.batch_sampler import TokenBatchSampler
from lens.train.data.encode import Encoders, encode_into_cache
from lens.train.data.latent_cache import EncodedSample, LatentCache
from lens.train.devices import autocast, resolve_device
from lens.train.lora import add_lora, export_lora, extract_lora
from lens.train.sample_grid import render_previews
from lens.train.settings.stages import TextToImageSettings
from lens.train.stages.base import HELD_OUT_TIMES

ADAPTER_NAME = "tuned"


class TextToImageStage:
    def __init__(self, settings: TextToImageSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        if self.device.type == "cuda":
            num_gpus = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
            check_memory(run_spec(settings), num_gpus, torch.cuda.mem_get_info()[0] / 2**30)
        folder = resolve_model(settings.model)
        self._denoiser: Any = _build_denoiser(settings, folder, self.device)
        layers = self._denoiser.config.selected_layer_index
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        encoders = Encoders(folder, layers, self.device, dtype)
        self._latent_cache = LatentCache(settings.store, settings.feature_bits)
        keys = encode_into_cache(self._latent_cache, encoders, image_text_samples(settings.data))
        if len(keys) <= settings.held_out:
            needs = f"fewer than the {len(keys)} images of the data"
            raise SettingError("held_out", settings.held_out, needs)
        num_trained = len(keys) - settings.held_out
        self._keys, self._held_out = keys[:num_trained], keys[num_trained:]
        lengths = [self._latent_cache.token_counts(key).num_image_tokens for key in self._keys]
        if max(lengths) > settings.pack_tokens:
            needs = f"at least {max(lengths)}, the image tokens of the largest image"
            raise SettingError("pack_tokens", settings.pack_tokens, needs)
        self._batch_sampler = TokenBatchSampler(lengths, settings.pack_tokens, settings.seed)
        self._previews = [encoders.encode_caption(prompt) for prompt in settings.previews]         # (L, T, E)
        self._folder, self._vae = folder, encoders.vae  # the text encoder, the largest of all, is freed
        self.model: Any = self._denoiser

    def objective(self, step: int, index: int) -> LossOutput:
        settings = self.settings
        batches = self._batch_sampler.batches_of_step(step, settings.micro_batches)
        started_at = time.perf_counter()
        samples = [self._latent_cache[self._keys[item]] for item in batches[index]]
        data_s = time.perf_counter() - started_at
        rng = np.random.default_rng([settings.seed, step, index])
        dropped = rng.random(len(samples)) < settings.prompt_dropout
        samples = [_without_text(one) if drop else one for one, drop in zip(samples, dropped, strict=True)]
        mus = [
            training_mu(one.latents[0].numel(), settings.timestep_mu, settings.timestep_tokens)
            for one in samples
        ]
        times = generator_for(settings.seed, "denoiser/times", step, index)
        t = torch.cat([logit_normal_times(torch.randn(1, generator=times), mu) for mu in mus])     # (P,)
        noise = generator_for(settings.seed, "denoiser/noise", step, index)
        errors = self._image_errors(samples, t, noise)
        # Packs hold different numbers of images; every image of an update counts equally.
        share = settings.micro_batches / sum(map(len, batches))
        terms = {"flow": errors.detach().mean()}
        return LossOutput(errors.sum() * share, terms, self._step_stats(samples, data_s))

    def _step_stats(self, samples: list[EncodedSample], data_s: float) -> StepStats:
        lengths = [(one.latents[0].numel(), one.features.shape[1]) for one in samples]
        flops = sum(training_flops(self._denoiser.config, *pair) for pair in lengths)
        return StepStats(len(samples), sum(map(sum, lengths)), flops, data_s)

    def evaluate(self) -> dict[str, float]:
        if not self._held_out:
            return {}
        losses = {}
        for t in HELD_OUT_TIMES:
            noise = generator_for(self.settings.seed, "denoiser/held_out")
            samples = (self._latent_cache[key] for key in self._held_out)
            errors = [self._image_errors([sample], torch.tensor([t]), noise) for sample in samples]
            losses[f"loss_t{t}"] = float(torch.cat(errors).mean())
        return losses | {"loss": float(np.mean(list(losses.values())))}

    def sample_grid(self):
        if not self._previews:
            return None
        pipeline = LensPipeline.from_pretrained(
            self._folder, transformer=self._denoiser, vae=self._vae, text_encoder=None, tokenizer=None
        )
        side = self.settings.data.bases[0]
        return render_previews(pipeline, self._previews, side, self.settings.seed, self.settings.precision)

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the adapter in both key styles, or the denoiser in bfloat16 in diffusers' layout."""
        if self.settings.lora:
            export_lora(extract_lora(state, self.settings.lora.alpha, ADAPTER_NAME), folder)
            return
        copy: Any = LensTransformer2DModel.from_config(self._denoiser.config)
        copy.load_state_dict(state)
        clear_name_or_path(copy)
        copy.to(torch.bfloat16).save_pretrained(folder / "transformer")

    def _image_errors(self, samples: list[EncodedSample], t: Tensor, noise: torch.Generator) -> Tensor:
        return image_errors(self._denoiser, samples, t, noise, self.device, self.settings.precision)


def image_errors(
    denoiser: Any, samples: list[EncodedSample], t: Tensor, noise: torch.Generator, device: torch.device,
    precision: str,
) -> Tensor:  # fmt: skip
    """Return the error of each image of a pack, (P,), at the times t."""
    clean = [one.latents.float() for one in samples]                                         # P of (C, h, w)
    eps = [torch.randn(one.shape, generator=noise) for one in clean]
    features = [list(one.features.to(device)) for one in samples]                         # P of L of (T, E)

    def velocity(noisy: list[Tensor], times: Tensor) -> list[Tensor]:
        with autocast(device, precision):
            return predict_velocity(denoiser, noisy, times, features)                        # P of (C, h, w)

    clean, eps = ([one.to(device) for one in kind] for kind in (clean, eps))
    return packed_flow_matching_errors(velocity, clean, t=t.to(device), noise=eps)


def _without_text(sample: EncodedSample) -> EncodedSample:
    return EncodedSample(sample.latents, sample.features[:, :0])                                   # (L, 0, E)


def _build_denoiser(settings: TextToImageSettings, folder: Path, device: torch.device) -> Any:
    """Return the denoiser to train, with its trainable weights in float32.

    Raises: SettingError for adapters on a denoiser from scratch, or on layers that do not exist.
    """
    if settings.config is not None:
        if settings.lora:
            raise SettingError("lora", settings.lora, "to be left out if `config` makes a new denoiser")
        denoiser: Any = LensTransformer2DModel(**settings.config)
        denoiser.init_weights(generator_for(settings.seed, "denoiser/weights"))
        if settings.start_from:
            source: Any = LensTransformer2DModel.from_pretrained(settings.start_from)
            denoiser.load_state_dict(source.state_dict())
    else:
        path = settings.start_from or folder / "transformer"
        dtype = torch.bfloat16 if settings.lora and settings.frozen_dtype == "bf16" else torch.float32
        denoiser = LensTransformer2DModel.from_pretrained(path, torch_dtype=dtype)
    if settings.lora:
        add_lora(denoiser, settings.lora, settings.seed, [ADAPTER_NAME], [ADAPTER_NAME])
    for unused in denoiser.unused_parameters():
        unused.requires_grad_(False)
    apply_activation_checkpointing(denoiser, settings.gradient_checkpointing)
    return denoiser.to(device)

