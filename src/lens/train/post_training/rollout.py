"""Rollouts: images that a role of a denoiser samples from prompts without guidance, and their scores.

Knows nothing of losses. Letters: G prompts, K images of each, C channels, h and w latent cells, L captured
layers, T text tokens, E their width.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import generator_for
from lens.core.resolution import SIDE_STEP_PX
from lens.core.schedule import sampling_sigmas
from lens.errors import NonFiniteError
from lens.models.prompt_template import pad_features
from lens.models.vae import decode_latents
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import ImageArray, Score
from lens.rl.rewards.pool import RewardExecutor, gather_scores
from lens.sampling.guided_denoiser import predict_velocity_cfg
from lens.sampling.prompt_embeds import PromptEmbeds
from lens.sampling.solvers import get_solver
from lens.train.data.encode import Encoders
from lens.train.data.progress import track
from lens.train.devices import autocast
from lens.train.distributed import all_gather_object, rank_and_world_size
from lens.train.post_training.policies import PolicySet

logger = logging.getLogger(__name__)


class RolloutSampler:
    """Samples images of prompts in the sizes of a run."""

    def __init__(
        self,
        policies: PolicySet,
        encoders: Encoders,
        sizes: Sequence[tuple[int, int]],
        num_channels: int,
        solver: str,
        device: torch.device,
        precision: str,
    ):
        self._policies, self._vae, self._num_channels = policies, encoders.vae, num_channels
        self._sizes, self._solver = list(sizes), get_solver(solver)
        self._device, self._precision = device, precision
        self._encoders, self._text_features = encoders, dict[str, Tensor]()
        self._encode_lru: Callable[[str], Tensor] = lru_cache(256)(encoders.encode_caption)

    def encode_prompts(self, prompts: Sequence[RLPrompt], batch_size: int) -> None:
        """Compute and keep the text features of all these prompts, `batch_size` at a time."""
        texts = list(dict.fromkeys(prompt.prompt for prompt in prompts))
        for start in range(0, len(texts), batch_size):
            some = texts[start : start + batch_size]
            self._text_features |= dict(zip(some, self._encoders.encode_captions(some), strict=True))

    def text_features(self, prompt: RLPrompt) -> Tensor:
        """Return the text features of a prompt, (L, T, E)."""
        known = self._text_features.get(prompt.prompt)
        return self._encode_lru(prompt.prompt) if known is None else known

    def latent_size(self, size_index: int) -> tuple[int, int]:
        """Return the latent size (h, w) of one of the sizes; the index wraps around."""
        height_px, width_px = self._sizes[size_index % len(self._sizes)]
        return height_px // SIDE_STEP_PX, width_px // SIDE_STEP_PX

    @property
    def num_sizes(self) -> int:
        return len(self._sizes)

    @torch.no_grad()
    def sample_latents(
        self,
        role: str,
        prompts: Sequence[RLPrompt],
        latent_size: tuple[int, int],
        generators: Sequence[Generator],
        num_images_per_prompt: int,
        num_steps: int,
    ) -> Tensor:
        """Return latents of sampled images, (G * K, C, h, w), prompt by prompt; each has its own noise."""
        shape = (num_images_per_prompt, self._num_channels, *latent_size)
        initial_noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        x = pack_latents(initial_noise).to(self._device)                                     # (G * K, h*w, C)
        embeds = self.prompt_embeds(prompts, num_images_per_prompt)
        with self._policies.use(role) as denoiser, autocast(self._device, self._precision):

            def velocity(x: Tensor, sigma: float) -> Tensor:
                return predict_velocity_cfg(denoiser, x, sigma, embeds, embeds, 1.0, latent_size)

            sigmas = sampling_sigmas(latent_size[0] * latent_size[1], num_steps)
            return unpack_latents(self._solver(velocity, sigmas, x), *latent_size)

    def prompt_embeds(self, prompts: Sequence[RLPrompt], num_images_per_prompt: int) -> PromptEmbeds:
        """Return the text inputs of the denoiser for some prompts, each repeated for its images."""
        rows = [self.text_features(prompt).float().to(self._device) for prompt in prompts]
        features, mask = pad_features([row.unbind(0) for row in rows])                      # L of (G, T, E)
        repeated = [layer.repeat_interleave(num_images_per_prompt, dim=0) for layer in features]
        return PromptEmbeds(repeated, mask.to(self._device).repeat_interleave(num_images_per_prompt, dim=0))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[ImageArray | None]:
        """Return images; None for one that is not finite, so that it fails alone and the run goes on."""
        images: list[ImageArray | None] = []
        for one in latents.split(1):
            try:
                with autocast(self._device, self._precision):
                    (pixels,) = decode_latents(self._vae, one).float()                             # (3, H, W)
            except NonFiniteError as error:
                logger.warning("A sampled image has no score. %s", error)
                images.append(None)
                continue
            uint8_image = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0)     # (H, W, 3)
            images.append(uint8_image.cpu().numpy())
        return images


def filter_solved_prompts(
    path: Path,
    sampler: RolloutSampler,
    executor: RewardExecutor,
    prompts: list[RLPrompt],
    role: str,
    num_images_per_prompt: int,
    num_steps: int,
    seed: int,
    prompts_per_pass: int,
) -> list[RLPrompt]:
    """Return the prompts for which not all images of a role get the highest score.

    Ranks divide the prompts among themselves. The result is stored in the file `path`; if the file exists, it
    is read instead.
    """
    if not path.is_file():
        prompts_by_size: dict[int, list[int]] = {}
        for number in range(len(prompts)):
            size = int(np.random.default_rng([seed, number]).integers(sampler.num_sizes))
            prompts_by_size.setdefault(size, []).append(number)
        passes = [
            (size, numbers[start : start + prompts_per_pass])
            for size, numbers in sorted(prompts_by_size.items())
            for start in range(0, len(numbers), prompts_per_pass)
        ]
        pending = []
        for pass_index, is_own in shard_indices(len(passes), "Screening prompts"):
            size, numbers = passes[pass_index]
            generators = [generator_for(seed, "rl/screening", 0, number) for number in numbers]
            pass_prompts = [prompts[number] for number in numbers]
            latents = sampler.sample_latents(
                role, pass_prompts, sampler.latent_size(size), generators, num_images_per_prompt, num_steps
            )
            if is_own:
                images = sampler.decode(latents)
                for place, number in enumerate(numbers):
                    own = images[place * num_images_per_prompt : (place + 1) * num_images_per_prompt]
                    pending.append((number, executor.submit(own, [prompts[number]] * num_images_per_prompt)))
        local_unsolved = [
            number for number, futures in pending if not have_perfect_scores(gather_scores(futures))
        ]
        unsolved = sorted(number for part in all_gather_object(local_unsolved) for number in part)
        if rank_and_world_size()[0] == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(unsolved))
        return [prompts[number] for number in unsolved]
    return [prompts[number] for number in json.loads(path.read_text())]


def evaluate_prompts(
    sampler: RolloutSampler,
    executor: RewardExecutor,
    prompts: list[RLPrompt],
    role: str,
    num_steps: int,
    seed: int,
) -> tuple[dict[str, float], list[ImageArray]]:
    """Return metrics of held-out prompts, with one image each, and this rank's images of one size."""
    images, pending = [], []
    for number, is_own in shard_indices(len(prompts)):
        generators = [generator_for(seed, "rl/held_out", 0, number)]
        latents = sampler.sample_latents(
            role, [prompts[number]], sampler.latent_size(number), generators, 1, num_steps
        )
        if is_own:
            (image,) = sampler.decode(latents)
            pending += executor.submit([image], [prompts[number]])
            images += [image] if image is not None and number % sampler.num_sizes == 0 else []
    scores = [one for part in all_gather_object(gather_scores(pending)) for one in part]
    values = [one.value for one in scores if one.value is not None]
    parts = {f"held_out/{name}": value for name, value in mean_score_parts(scores).items()}
    failed_share = 1 - len(values) / len(scores)
    return {
        "held_out/reward": float(np.mean(values or [0.0])),
        "held_out/failed": failed_share,
    } | parts, images


def shard_indices(count: int, description: str = "") -> Iterator[tuple[int, bool]]:
    """Yield this rank's share of `count` indices, and whether each index is its own.

    Ranks that share weights need the same number of passes. A rank without an index of its own repeats the
    last.
    """
    rank, num_ranks = rank_and_world_size()
    for position in track(range(-(-count // num_ranks)), description, disable=rank > 0 or not description):
        number = position * num_ranks + rank
        yield min(number, count - 1), number < count


def mean_score_parts(scores: Sequence[Score]) -> dict[str, float]:
    """Return the mean of every score part over the images that have it."""
    names = sorted({name for one in scores for name in one.parts})
    return {
        name: float(np.mean([one.parts[name] for one in scores if name in one.parts])) for name in names
    }


def have_perfect_scores(scores: Sequence[Score]) -> bool:
    """Return whether all images got the highest possible score."""
    return all(one.value is not None and one.value > 1 - 1e-6 for one in scores)
