"""The rl stage: fine-tunes a model by rewards with DiffusionNFT.

An update first samples its groups of images with the sampling policy, some groups per pass; a reward scores
each pass while the next one is sampled. The update then trains on the images of each pass, at some of the
times of the rollout. Spec: section 9. Letters: G groups, K images of a group, g groups of a pass, B images
that are trained on, C channels, h and w latent cells.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lens.core.flow import interpolate
from lens.core.noise import generator_for
from lens.core.schedule import sampling_sigmas
from lens.errors import SettingError
from lens.losses.base import LossOutput, StepStats
from lens.losses.diffusion_nft import (
    advantages,
    diversity,
    has_equal_rewards,
    nft_terms,
    old_policy_decay,
    optimality,
)
from lens.models.checkpoints.registry import resolve_model
from lens.models.checkpoints.writer import clear_name_or_path
from lens.models.denoiser import LensTransformer2DModel
from lens.models.velocity import predict_velocity
from lens.rl.prompts.dataset import RLPrompt, read_prompts
from lens.rl.prompts.nano import nano_prompts
from lens.rl.rewards.factory import create_reward
from lens.rl.rewards.pool import RewardExecutor, gather_scores
from lens.sampling.pipeline import LensPipeline
from lens.sampling.prompt_embeds import PromptEmbeds
from lens.train.cost.flops import TRAINING_FACTOR, forward_flops
from lens.train.data.encode import Encoders
from lens.train.devices import autocast, resolve_device
from lens.train.distributed import all_gather_object, rank_and_world_size
from lens.train.lora import export_lora, extract_lora
from lens.train.post_training.collapse import CollapseMonitor
from lens.train.post_training.policies import BASE, PolicySet
from lens.train.post_training.rollout import (
    RolloutSampler,
    evaluate_prompts,
    filter_solved_prompts,
    mean_score_parts,
)
from lens.train.sample_grid import image_grid
from lens.train.settings.rl import RlSettings
from lens.train.settings.stages import bucket_sizes
from lens.train.stages.nano_eval import NanoEval

THETA, OLD = "theta", "old"


class RolloutBatch(NamedTuple):
    """Images of one size that were sampled together for an update, group by group."""

    prompts: list[RLPrompt]
    """One prompt per group."""
    latents: Tensor
    """(g * K, C, h, w)."""
    times: Tensor
    """(g * K, times per image)."""


class Rollouts(NamedTuple):
    """Training data of an update: the passes of this rank, and metrics of all ranks."""

    step: int
    batches: dict[int, RolloutBatch]
    optimality: dict[int, Tensor]
    """(g * K,) of each pass: the probability that an image is optimal."""
    weights: dict[int, Tensor]
    """(g * K,) of each pass: 1, or 0 for images that are not trained on."""
    metrics: dict[str, float]
    elapsed_s: float


class RlStage:
    ema_parts = (THETA,)

    def __init__(self, settings: RlSettings):
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._folder = resolve_model(settings.model)
        is_light = settings.lora is not None and settings.frozen_dtype == "bf16"
        denoiser: Any = LensTransformer2DModel.from_pretrained(
            settings.start_from or self._folder / "transformer",
            torch_dtype=torch.bfloat16 if is_light else torch.float32,
        )
        clear_name_or_path(denoiser)
        self._config = denoiser.config
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._encoders = Encoders(self._folder, denoiser.config.selected_layer_index, self.device, dtype)
        self._policies = PolicySet(
            denoiser, (THETA,), (OLD,), settings.lora, settings.seed, settings.gradient_checkpointing
        )
        self.model = self._policies.module.to(self.device)
        prompts = _load_prompts(settings)
        if len(prompts) <= settings.held_out:
            needs = f"fewer than the {len(prompts)} prompts"
            raise SettingError("held_out", settings.held_out, needs)
        num_trained = len(prompts) - settings.held_out
        self._held_out = prompts[num_trained:]
        self._sizes = [
            size for base in settings.bases for size in bucket_sizes("ratios", settings.ratios, base)
        ]
        rank, num_ranks = rank_and_world_size()
        self._num_batches = settings.prompts_per_step // settings.groups_per_pass
        if self._num_batches % num_ranks:
            needs = f"a multiple of {num_ranks * settings.groups_per_pass} (groups_per_pass x processes)"
            raise SettingError("prompts_per_step", settings.prompts_per_step, needs)
        self._local_batches = range(rank, self._num_batches, num_ranks)
        self._reward_executor = self._build_reward_executor(settings.reward, "reward")
        other = settings.held_out_reward
        self._held_out_executor = (
            self._build_reward_executor(other, "held_out") if other else self._reward_executor
        )
        self._nano_eval = NanoEval(
            settings.probe_prompts, [self._sizes[0]], self.device, settings.precision,
            world=settings.world, num_processes=settings.probe_processes,
        )  # fmt: skip
        self._sampler = RolloutSampler(
            self._policies,
            self._encoders,
            self._sizes,
            self._config.in_channels,
            settings.solver,
            self.device,
            settings.precision,
        )
        if settings.text_encoder_batch_size > 1:
            self._sampler.encode_prompts(prompts, settings.text_encoder_batch_size)
        self._held_out_images: list[np.ndarray] = []
        self._last_failure = ""
        self._rollouts: Rollouts | None = None
        self._prompts, self._has_filtered_prompts = prompts[:num_trained], not settings.screening
        self._collapse = CollapseMonitor(settings.collapse)

    @property
    def extra_state(self) -> dict[str, Tensor]:
        return self._policies.extra_state | {"monitors": self._collapse.state}

    def active_parts(self, step: int) -> tuple[str, ...]:
        return (THETA,)

    def objective(self, step: int, index: int) -> LossOutput:
        settings = self.settings
        if self._rollouts is None or self._rollouts.step != step:
            self._rollouts = self._collect_rollouts(step)
        rollouts = self._rollouts
        time_index, batch_index = divmod(index, self._num_batches)
        batch, weights = rollouts.batches[batch_index], rollouts.weights[batch_index]
        metrics = {name: torch.tensor(value, device=self.device) for name, value in rollouts.metrics.items()}
        rows = weights.nonzero()[:, 0]                                                          # (B,)
        if not len(rows) and torch.distributed.is_initialized():
            rows = torch.zeros(1, dtype=torch.int64, device=self.device)  # all ranks make the same passes
        work = self._step_stats(batch, len(rows), is_first_time=time_index == 0, rollouts=rollouts)
        if not len(rows):
            nothing = torch.zeros((), device=self.device, requires_grad=True)
            return LossOutput(
                nothing, dict.fromkeys(("policy", "kl", "drift"), nothing.detach()) | metrics, work
            )
        noise = self._renoise(batch, step, time_index, batch_index)[rows]                       # (B, C, h, w)
        clean, t = batch.latents[rows], batch.times[rows, time_index]                     # (B, C, h, w), (B,)
        noisy = interpolate(clean, noise, t)
        prompt_embeds = self._sampler.prompt_embeds(batch.prompts, settings.images_per_prompt).rows(
            rows.tolist()
        )
        with torch.no_grad():
            old = self._predict_velocity(OLD, prompt_embeds, noisy, t)
            reference = self._predict_velocity(BASE, prompt_embeds, noisy, t) if settings.kl_weight else None
        self._policies.set_active(THETA)
        new = self._predict_velocity(THETA, prompt_embeds, noisy, t)
        terms = nft_terms(
            new, old, reference, noisy, clean, t=t, optimal=rollouts.optimality[batch_index][rows],
            nft_beta=settings.nft_beta,
        )  # fmt: skip
        # Means over all images of the pass, including those that are not trained on.
        named = {"policy": terms.policy, "kl": terms.kl, "drift": terms.drift}
        means = {name: (value * weights[rows]).sum() / len(weights) for name, value in named.items()}
        loss = means["policy"] + settings.kl_weight * means["kl"]
        return LossOutput(loss, {name: value.detach() for name, value in means.items()} | metrics, work)

    def after_update(self, step: int) -> str:
        self._policies.ema_update(OLD, THETA, old_policy_decay(step + 1, self.settings.old_decay))
        rollouts = self._rollouts
        assert rollouts is not None and rollouts.step == step
        return self._collapse.update(rollouts.metrics, self._last_failure)

    def evaluate(self) -> dict[str, float]:
        settings = self.settings
        metrics: dict[str, float] = {}
        for turn, guidance in enumerate(settings.probe_guidance if settings.probe_prompts else ()):
            with self._policies.use(THETA) as denoiser:
                numbers = self._nano_eval.evaluate(
                    self._pipeline(denoiser), guidance_scale=guidance,
                    num_inference_steps=settings.probe_steps,
                )  # fmt: skip
            prefix = "" if turn == 0 else f"guidance {guidance:g}/"
            metrics |= {prefix + name: value for name, value in numbers.items()}
        if self._held_out:
            numbers, self._held_out_images = evaluate_prompts(
                self._sampler,
                self._held_out_executor,
                self._held_out,
                THETA,
                settings.probe_steps,
                settings.seed,
            )
            metrics |= numbers
        return metrics

    def sample_grid(self):
        if self._held_out_images:
            shown = torch.from_numpy(np.stack(self._held_out_images[:12])).permute(0, 3, 1, 2)  # (N, 3, H, W)
            return image_grid(shown / 127.5 - 1, columns=4)
        return self._nano_eval.sample_grid() if self.settings.probe_prompts else None

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the adapter in both key styles, or the denoiser in bfloat16 in diffusers' layout."""
        if self.settings.lora:
            start = "denoiser."
            own = {name.removeprefix(start): tensor for name, tensor in state.items()}
            export_lora(extract_lora(own, self.settings.lora.alpha, THETA), folder)
            return
        copy: Any = LensTransformer2DModel.from_config(self._config)
        copy.load_state_dict(self._policies.state_dict_of(THETA, state))
        copy.to(torch.bfloat16).save_pretrained(folder / "transformer")

    def _unsolved_prompts(self) -> list[RLPrompt]:
        """Return the prompts for which the untrained model does not always get the highest score.

        Raises: SettingError if there are none.
        """
        settings = self.settings
        unsolved = filter_solved_prompts(
            settings.out / "screened.json",
            self._sampler,
            self._reward_executor,
            self._prompts,
            BASE,
            settings.screening,
            settings.rollout_steps,
            settings.seed,
            settings.groups_per_pass,
        )
        if not unsolved:
            needs = "0, as the model already gets the highest score on all prompts"
            fix = "Use harder prompts."
            raise SettingError("screening", settings.screening, needs, fix)
        return unsolved

    def _collect_rollouts(self, step: int) -> Rollouts:
        """Sample this rank's passes of an update and wait for their scores."""
        if not self._has_filtered_prompts:  # not earlier, as ranks sample together
            self._prompts, self._has_filtered_prompts = self._unsolved_prompts(), True
        settings, started_at = self.settings, time.perf_counter()
        num_groups, num_images = settings.groups_per_pass, settings.images_per_prompt
        batches, pending, group_results = {}, {}, {}
        for batch_index in self._local_batches:
            batches[batch_index] = one = self._sample_rollout_batch(step, batch_index)
            images = self._sampler.decode(one.latents)
            # Images without a score have no weight, but zero times a latent that is not finite is not zero.
            one.latents[[image is None for image in images]] = 0
            image_prompts = [prompt for prompt in one.prompts for _ in range(num_images)]
            pending[batch_index] = self._reward_executor.submit(images, image_prompts)
        for batch_index, futures in pending.items():
            scores = gather_scores(futures)
            self._last_failure = (
                next((one.failure for one in scores if one.failure), "") or self._last_failure
            )
            for place in range(num_groups):
                own = slice(place * num_images, (place + 1) * num_images)
                values = [one.value for one in scores[own]]
                spread = float(diversity(batches[batch_index].latents[own]))
                group_results[batch_index * num_groups + place] = (
                    values,
                    mean_score_parts(scores[own]),
                    spread,
                )
        results_by_group = {
            number: result for part in all_gather_object(group_results) for number, result in part.items()
        }
        rows = [results_by_group[number] for number in range(settings.prompts_per_step)]
        raw = torch.tensor([[torch.nan if one is None else one for one in row[0]] for row in rows])  # (G, K)
        optimal = optimality(advantages(raw, settings.advantage_clip), settings.advantage_width)      # (G, K)
        has_score = raw.isfinite()
        weights = has_score.float()                                                                   # (G, K)
        if not settings.even_groups:
            weights *= ~has_equal_rewards(raw)[:, None]
        metrics = {
            "reward": float(raw.nanmean()) if has_score.any() else 0.0,
            "diversity": float(np.mean([row[2] for row in rows])),
            "even_groups": float(has_equal_rewards(raw).float().mean()),
            "failed": float((~has_score).float().mean()),
        }
        for name in sorted({name for row in rows for name in row[1]}):
            metrics[f"reward/{name}"] = float(np.mean([row[1][name] for row in rows if name in row[1]]))
        optimal, weights = (
            of_groups.reshape(-1, num_groups * num_images) for of_groups in (optimal, weights)
        )
        return Rollouts(
            step, batches, {number: optimal[number].to(self.device) for number in batches},
            {number: weights[number].to(self.device) for number in batches},
            metrics, time.perf_counter() - started_at,
        )  # fmt: skip

    def _sample_rollout_batch(self, step: int, batch_index: int) -> RolloutBatch:
        settings = self.settings
        groups = self._group_indices(batch_index)
        prompts = [self._prompt_at(step * settings.prompts_per_step + group) for group in groups]
        rngs = [np.random.default_rng([settings.seed, step, group]) for group in groups]
        size, *_ = [int(rng.integers(len(self._sizes))) for rng in rngs]
        latent_size = self._sampler.latent_size(size)
        noise = [generator_for(settings.seed, "rl/noise", step, group) for group in groups]
        count, steps = settings.images_per_prompt, settings.rollout_steps
        latents = self._sampler.sample_latents(OLD, prompts, latent_size, noise, count, steps)
        # The start of the last step is left out, as it has hardly any noise.
        rollout_times = sampling_sigmas(latent_size[0] * latent_size[1], steps)[:-2]
        time_indices = np.stack([rng.permutation(len(rollout_times)) for rng in rngs for _ in range(count)])
        chosen = torch.from_numpy(time_indices[:, : settings.times_per_image])
        return RolloutBatch(prompts, latents, rollout_times[chosen].to(self.device))

    def _group_indices(self, batch_index: int) -> range:
        """Return the groups of a pass, numbered within the update."""
        first = batch_index * self.settings.groups_per_pass
        return range(first, first + self.settings.groups_per_pass)

    def _renoise(self, batch: RolloutBatch, step: int, time_index: int, batch_index: int) -> Tensor:
        """Return the noise for training on a pass at one of its times, (g * K, C, h, w)."""
        settings = self.settings
        shape = (settings.images_per_prompt, *batch.latents.shape[1:])
        generators = [
            generator_for(
                settings.seed, "rl/noise again", step, time_index * settings.prompts_per_step + group
            )
            for group in self._group_indices(batch_index)
        ]
        return torch.cat([torch.randn(shape, generator=draw) for draw in generators]).to(batch.latents)

    def _prompt_at(self, group_index: int) -> RLPrompt:
        """Return the prompt of a group, numbered within the run; each epoch has a new order of prompts."""
        epoch, place = divmod(group_index, len(self._prompts))
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self._prompts))
        return self._prompts[order[place]]

    def _predict_velocity(self, role: str, prompt_embeds: PromptEmbeds, noisy: Tensor, t: Tensor) -> Tensor:
        """Return the velocity of a role at noisy latents, (B, C, h, w)."""
        with self._policies.use(role) as denoiser, autocast(self.device, self.settings.precision):
            return predict_velocity(denoiser, noisy, t, prompt_embeds.features, prompt_embeds.mask)

    def _step_stats(
        self, batch: RolloutBatch, num_learned: int, is_first_time: bool, rollouts: Rollouts
    ) -> StepStats:
        """Return the work of one pass at one time; sampling counts with the first time."""
        num_image_tokens = batch.latents[0, 0].numel()
        lengths = [self._sampler.text_features(prompt).shape[1] for prompt in batch.prompts]
        forward = sum(forward_flops(self._config, num_image_tokens, length) for length in lengths) / len(
            lengths
        )
        count = len(batch.latents) if is_first_time else 0
        num_forward_passes = (
            num_learned * (TRAINING_FACTOR + 1 + bool(self.settings.kl_weight))
            + count * self.settings.rollout_evaluations
        )
        tokens = num_learned * (num_image_tokens + sum(lengths) // len(lengths))
        return StepStats(
            count,
            tokens,
            num_forward_passes * forward,
            rollouts.elapsed_s / len(rollouts.batches) if is_first_time else 0.0,
        )

    def _build_reward_executor(self, reward: Any, name: str) -> RewardExecutor:
        settings = self.settings
        rank, _ = rank_and_world_size()
        folder = settings.out / "rewards" / f"rank_{rank}"
        judge = create_reward(reward, folder, name)
        return RewardExecutor(judge, settings.reward_workers, settings.reward_timeout_s)

    def _pipeline(self, denoiser: Any) -> LensPipeline:
        return LensPipeline.from_pretrained(
            self._folder, transformer=denoiser, vae=self._encoders.vae,
            text_encoder=self._encoders.text_encoder, tokenizer=self._encoders.tokenizer,
        )  # fmt: skip


def _load_prompts(settings: RlSettings) -> list[RLPrompt]:
    if settings.prompts is not None:
        return read_prompts(settings.prompts)
    own = settings.nano_prompts
    assert own is not None
    return nano_prompts(own.count, own.seed, own.kinds, own.dense_share, own.new_share, settings.world)
