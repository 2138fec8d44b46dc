"""Batches of the pretrain stage: cached examples of the CPU, or resident examples of the device.

Letters: B batch, C channels of an image token, h and w latent cells, T text tokens.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lens.core.noise import generator_for
from lens.core.schedule import logit_normal_times, training_mu
from lens.losses.base import LossOutput, StepStats
from lens.train.cost.flops import training_flops
from lens.train.data.nano_cache import CachedBucket
from lens.train.data.resident_bucket import ResidentBucket
from lens.train.settings.stages import NanoPretrainSettings
from lens.train.stages.pretrain_loss import CapturedLoss, PretrainLoss, PretrainTerms


class CachedObjective:
    """Examples in main memory; times and noise are drawn there, alike for every device."""

    def __init__(
        self, settings: NanoPretrainSettings, loss: PretrainLoss, buckets: Sequence[CachedBucket],
        num_scaffold_tokens: int,
    ):  # fmt: skip
        self._settings, self._loss, self._buckets = settings, loss, buckets
        self._num_scaffold_tokens = num_scaffold_tokens
        self._shares = _shares(buckets)

    def __call__(self, step: int, index: int) -> LossOutput:
        settings = self._settings
        count = settings.batch_size // settings.micro_batches
        rng = np.random.default_rng([settings.seed, step, index])
        bucket = self._buckets[rng.choice(len(self._buckets), p=self._shares)]
        started_at = time.perf_counter()
        last_tokens = 0 if _sees_prompt(settings, rng) else self._num_scaffold_tokens
        examples = bucket.sample(rng, count, last_tokens)
        data_s = time.perf_counter() - started_at
        clean = examples.latents                                                                # (B, C, h, w)
        examples.mask[torch.from_numpy(rng.random(count) < settings.prompt_dropout)] = False
        num_tokens = clean.shape[2] * clean.shape[3]
        num_text = examples.mask.sum(1).tolist()
        config = self._loss.denoiser.config
        flops = sum(training_flops(config, num_tokens, text) for text in num_text)
        work = StepStats(count, count * num_tokens + sum(num_text), flops, data_s)
        time_generator = generator_for(settings.seed, "pretrain/times", step, index)
        t = _times(settings, torch.randn(count, generator=time_generator), num_tokens)          # (B,)
        noise_generator = generator_for(settings.seed, "pretrain/noise", step, index)
        noise = torch.randn(clean.shape, generator=noise_generator)                             # (B, C, h, w)
        device = self._loss.denoiser.device
        clean, t, noise, mask, labels = (
            part.to(device) for part in (clean, t, noise, examples.mask, examples.labels)
        )
        features = [feature.to(device) for feature in examples.features]
        return _output(settings, self._loss(clean, t, noise, features, mask, labels), work)


class ResidentObjective:
    """Examples in the memory of the device, which also draws times and noise: no work per sample on the host.

    The host chooses an image size and a length class for each step. The draws differ from those of
    `CachedObjective` and between devices, but not between a run and its continuation.
    """

    def __init__(self, settings: NanoPretrainSettings, loss: PretrainLoss, buckets: Sequence[ResidentBucket]):
        self._settings, self._buckets, self._shares = settings, buckets, _shares(buckets)
        self._config, self._device = loss.denoiser.config, loss.denoiser.device
        self._loss = CapturedLoss(loss) if settings.capture else loss
        self._generator = torch.Generator(self._device)

    def __call__(self, step: int, index: int) -> LossOutput:
        settings, count = self._settings, self._settings.batch_size
        rng = np.random.default_rng([settings.seed, step, index])
        bucket = self._buckets[rng.choice(len(self._buckets), p=self._shares)]
        length_class = bucket.scaffold
        if _sees_prompt(settings, rng):
            sizes = [one.stop - one.start for one in bucket.length_classes]
            length_class = bucket.length_classes[rng.choice(len(sizes), p=np.array(sizes) / sum(sizes))]
        draws = generator_for(settings.seed, "pretrain/resident", step, index)
        generator = self._generator.manual_seed(draws.initial_seed())
        examples = bucket.sample(generator, count, length_class)
        has_text = torch.rand(count, generator=generator, device=self._device) >= settings.prompt_dropout
        mask = examples.mask & has_text[:, None]                                                # (B, T)
        clean = examples.latents.float()                                                        # (B, C, h, w)
        normal = torch.randn(count, generator=generator, device=self._device)
        t = _times(settings, normal, bucket.num_image_tokens)                                   # (B,)
        noise = torch.randn(clean.shape, generator=generator, device=self._device)              # (B, C, h, w)
        terms = self._loss(clean, t, noise, examples.features, mask, examples.labels)
        # The mean, as the host does not know which examples were drawn.
        num_text = round(length_class.mean_tokens * (1 - settings.prompt_dropout))
        flops = count * training_flops(self._config, bucket.num_image_tokens, num_text)
        work = StepStats(count, count * (bucket.num_image_tokens + num_text), flops)
        return _output(settings, terms, work)


def _shares(buckets: Sequence[CachedBucket | ResidentBucket]) -> np.ndarray:
    return np.array([len(bucket) for bucket in buckets]) / sum(map(len, buckets))


def _sees_prompt(settings: NanoPretrainSettings, rng: np.random.Generator) -> bool:
    return settings.prompt_token_share == 1 or rng.random() < settings.prompt_token_share


def _times(settings: NanoPretrainSettings, normal: Tensor, num_tokens: int) -> Tensor:
    mu = training_mu(num_tokens, settings.timestep_mu, settings.timestep_tokens)
    return logit_normal_times(normal, mu)                                                       # (B,)


def _output(settings: NanoPretrainSettings, terms: PretrainTerms, work: StepStats) -> LossOutput:
    if not settings.layout_weight:
        return LossOutput(terms.loss, {}, work)
    return LossOutput(terms.loss, {"flow": terms.flow.detach(), "layout": terms.layout.detach()}, work)
