"""Tune a model by rewards: DiffusionNFT, with rollouts judged while the next ones are drawn.

An update first draws its groups of pictures with the sampling policy, some groups a pass, then learns from
the pictures of each pass at some of the rollout's own times. Spec: section 9. Letters: G groups, K pictures
of a group, g groups of a pass, B pictures that are learned from, C channels, h and w latent cells.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lens.core.flow import interpolate
from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import generator_for
from lens.core.schedule import sampling_sigmas
from lens.errors import SettingError
from lens.losses.base import Objective, Work
from lens.losses.diffusion_nft import advantages, are_even, diversity, nft_terms, old_decay, optimality
from lens.models.checkpoints.registry import resolve_model
from lens.models.checkpoints.writer import forget_origin
from lens.models.denoiser import LensTransformer2DModel
from lens.rl.prompts.dataset import RLPrompt, read_prompts
from lens.rl.prompts.nano import nano_prompts
from lens.rl.rewards.pool import RewardPool, gathered
from lens.rl.rewards.settings import reward_of
from lens.sampling.pipeline import LensPipeline
from lens.sampling.prompt_embeds import TextBatch
from lens.train.cost.flops import forward_flops
from lens.train.data.encode import Encoders
from lens.train.devices import autocast, chosen_device
from lens.train.distributed import of_all_ranks, own_rank
from lens.train.lora import adapter_in, export_adapter
from lens.train.post_training.policies import BASE, Roles
from lens.train.post_training.rollout import Drawer, judged, mean_parts, screened
from lens.train.sample_grid import grid_of
from lens.train.settings.rl import RlSettings
from lens.train.settings.stages import sizes_of
from lens.train.stages.nano_eval import NanoProbe

THETA, OLD = "theta", "old"
SMOOTHING = 0.9
"""Decay of the running means that tell a collapse."""


class Pass(NamedTuple):
    """Pictures of one size that were drawn together for an update, group by group."""

    prompts: list[RLPrompt]
    """One a group."""
    latents: Tensor
    """(g * K, C, h, w)."""
    times: Tensor
    """(g * K, times a picture is learned from)."""


class Rollouts(NamedTuple):
    """What an update learns from: this rank's passes, and numbers of all."""

    step: int
    passes: dict[int, Pass]
    optimal: dict[int, Tensor]
    """(g * K,) of each pass: how likely its pictures are good ones."""
    weights: dict[int, Tensor]
    """(g * K,) of each pass: 1, or 0 for pictures that nothing is learned from."""
    numbers: dict[str, float]
    elapsed_s: float


class RlStage:
    averaged = (THETA,)

    def __init__(self, settings: RlSettings):
        self.settings = settings
        self.device = chosen_device(settings.device)
        self._folder = resolve_model(settings.model)
        is_light = settings.lora is not None and settings.frozen_dtype == "bf16"
        denoiser: Any = LensTransformer2DModel.from_pretrained(
            settings.start_from or self._folder / "transformer",
            torch_dtype=torch.bfloat16 if is_light else torch.float32,
        )
        forget_origin(denoiser)
        self._config = denoiser.config
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._encoders = Encoders(self._folder, denoiser.config.selected_layer_index, self.device, dtype)
        self._roles = Roles(
            denoiser, (THETA,), (OLD,), settings.lora, settings.seed, settings.gradient_checkpointing
        )
        self.trained = self._roles.module.to(self.device)
        prompts = _prompts_of(settings)
        if len(prompts) <= settings.held_out:
            needs = f"fewer than the {len(prompts)} prompts that there are"
            raise SettingError("held_out", settings.held_out, needs)
        num_trained = len(prompts) - settings.held_out
        self._held_out = prompts[num_trained:]
        self._sizes = [size for base in settings.bases for size in sizes_of("ratios", settings.ratios, base)]
        rank, num_ranks = own_rank()
        self._num_passes = settings.prompts_per_step // settings.groups_per_pass
        if self._num_passes % num_ranks:
            needs = f"a multiple of {num_ranks * settings.groups_per_pass}, groups_per_pass for every process"
            raise SettingError("prompts_per_step", settings.prompts_per_step, needs)
        self._own = range(rank, self._num_passes, num_ranks)
        self._pool = self._pool_of(settings.reward, "reward")
        other = settings.held_out_reward
        self._judge = self._pool_of(other, "held_out") if other else self._pool
        self._probe = NanoProbe(
            settings.probe_prompts, [self._sizes[0]], self.device, settings.precision,
            processes=settings.probe_processes,
        )  # fmt: skip
        self._drawer = Drawer(
            self._roles, self._encoders, self._sizes, self._config.in_channels, settings.solver, self.device,
            settings.precision,
        )  # fmt: skip
        if settings.encode_at_once > 1:
            self._drawer.encode(prompts, settings.encode_at_once)
        self._shown: list[np.ndarray] = []
        self._why_failed = ""
        self._rollouts: Rollouts | None = None
        self._prompts, self._is_screened = prompts[:num_trained], not settings.screening
        # First and running diversity, first and running reward: what a collapse is told by.
        self._monitors = torch.full((4,), torch.nan)

    @property
    def kept(self) -> dict[str, Tensor]:
        return self._roles.kept | {"monitors": self._monitors}

    def parts_of(self, step: int) -> tuple[str, ...]:
        return (THETA,)

    def objective(self, step: int, index: int) -> Objective:
        settings = self.settings
        if self._rollouts is None or self._rollouts.step != step:
            self._rollouts = self._drawn(step)
        drawn = self._rollouts
        turn, number = divmod(index, self._num_passes)
        one, weights = drawn.passes[number], drawn.weights[number]
        told = {name: torch.tensor(value, device=self.device) for name, value in drawn.numbers.items()}
        rows = weights.nonzero()[:, 0]                                                          # (B,)
        if not len(rows) and torch.distributed.is_initialized():
            rows = torch.zeros(1, dtype=torch.int64, device=self.device)  # several ranks keep in step
        work = self._work(one, len(rows), first=turn == 0, drawn=drawn)
        if not len(rows):
            nothing = torch.zeros((), device=self.device, requires_grad=True)
            return Objective(nothing, dict.fromkeys(("policy", "kl", "drift"), nothing.detach()) | told, work)
        noise = self._noise_again(one, step, turn, number)[rows]                                # (B, C, h, w)
        clean, t = one.latents[rows], one.times[rows, turn]                         # (B, C, h, w), (B,)
        noisy = interpolate(clean, noise, t)
        text = self._drawer.text(one.prompts, settings.pictures_per_prompt).rows(rows.tolist())
        with torch.no_grad():
            old = self._velocity(OLD, text, noisy, t)
            reference = self._velocity(BASE, text, noisy, t) if settings.kl_weight else None
        self._roles.take(THETA)
        new = self._velocity(THETA, text, noisy, t)
        terms = nft_terms(
            new, old, reference, noisy, clean, t=t, optimal=drawn.optimal[number][rows],
            nft_beta=settings.nft_beta,
        )  # fmt: skip
        # Means over all pictures of the pass, also those that nothing is learned from.
        named = {"policy": terms.policy, "kl": terms.kl, "drift": terms.drift}
        means = {name: (value * weights[rows]).sum() / len(weights) for name, value in named.items()}
        loss = means["policy"] + settings.kl_weight * means["kl"]
        return Objective(loss, {name: value.detach() for name, value in means.items()} | told, work)

    def after_update(self, step: int) -> str:
        settings = self.settings
        self._roles.follow(OLD, THETA, old_decay(step + 1, settings.old_decay))
        drawn = self._rollouts
        assert drawn is not None and drawn.step == step
        if drawn.numbers["failed"] > settings.collapse.most_failed:
            share = f"{drawn.numbers['failed']:.0%} of the pictures"
            return f"ended, as {share} got no score ({self._why_failed})"
        now = torch.tensor([drawn.numbers["diversity"], drawn.numbers["reward"]])
        first, running = self._monitors[:2], self._monitors[2:]
        if first.isnan().any():
            first.copy_(now)
            running.copy_(now)
        running.lerp_(now, 1 - SMOOTHING)
        least = (settings.collapse.least_diversity, settings.collapse.least_reward)
        for name, one, start, share in zip(("diversity", "reward"), running, first, least, strict=True):
            if one < share * start:
                return f"ended, as {name} fell from {start:.3g} to {one:.3g}: a collapse"
        return ""

    def probe(self) -> dict[str, float]:
        settings = self.settings
        found: dict[str, float] = {}
        for turn, guidance in enumerate(settings.probe_guidance if settings.probe_prompts else ()):
            with self._roles.acting(THETA) as denoiser:
                numbers = self._probe.numbers(
                    self._pipeline(denoiser), guidance_scale=guidance,
                    num_inference_steps=settings.probe_steps,
                )  # fmt: skip
            prefix = "" if turn == 0 else f"guidance {guidance:g}/"
            found |= {prefix + name: value for name, value in numbers.items()}
        if self._held_out:
            numbers, self._shown = judged(
                self._drawer, self._judge, self._held_out, THETA, settings.probe_steps, settings.seed
            )
            found |= numbers
        return found

    def sample_grid(self):
        if self._shown:
            shown = torch.from_numpy(np.stack(self._shown[:12])).permute(0, 3, 1, 2)          # (N, 3, H, W)
            return grid_of(shown / 127.5 - 1, columns=4)
        return self._probe.grid() if self.settings.probe_prompts else None

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the adapter in both key styles, or the denoiser in bfloat16 as diffusers lays it out."""
        if self.settings.lora:
            start = "denoiser."
            own = {name.removeprefix(start): tensor for name, tensor in state.items()}
            export_adapter(adapter_in(own, self.settings.lora.alpha, THETA), folder)
            return
        copy: Any = LensTransformer2DModel.from_config(self._config)
        copy.load_state_dict(self._roles.state_of(THETA, state))
        copy.to(torch.bfloat16).save_pretrained(folder / "transformer")

    def _screened(self) -> list[RLPrompt]:
        """Return the prompts that the model as it is does not always draw without fault.

        Raises: SettingError where there are none.
        """
        settings = self.settings
        found = screened(
            settings.out / "screened.json", self._drawer, self._pool, self._prompts, BASE, settings.screening,
            settings.rollout_steps, settings.seed, settings.groups_per_pass,
        )  # fmt: skip
        if not found:
            needs = "0, for the model draws all of them without fault: other prompts are needed"
            raise SettingError("screening", settings.screening, needs)
        return found

    def _drawn(self, step: int) -> Rollouts:
        """Draw this rank's passes of an update and wait for their scores."""
        if not self._is_screened:  # not before, for ranks draw together
            self._prompts, self._is_screened = self._screened(), True
        settings, started_at = self.settings, time.perf_counter()
        at_once, count = settings.groups_per_pass, settings.pictures_per_prompt
        passes, waiting, found = {}, {}, {}
        for number in self._own:
            passes[number] = one = self._drawn_pass(step, number)
            pictures = self._drawer.pictures(one.latents)
            asked = [prompt for prompt in one.prompts for _ in range(count)]
            waiting[number] = self._pool.submit(pictures, asked)
        for number, futures in waiting.items():
            scores = gathered(futures)
            self._why_failed = next((one.failure for one in scores if one.failure), "") or self._why_failed
            for place in range(at_once):
                own = slice(place * count, (place + 1) * count)
                values = [one.value for one in scores[own]]
                spread = float(diversity(passes[number].latents[own]))
                found[number * at_once + place] = values, mean_parts(scores[own]), spread
        everyone = {number: facts for part in of_all_ranks(found) for number, facts in part.items()}
        rows = [everyone[number] for number in range(settings.prompts_per_step)]
        raw = torch.tensor([[torch.nan if one is None else one for one in row[0]] for row in rows])  # (G, K)
        likely = optimality(advantages(raw, settings.advantage_clip), settings.advantage_width)      # (G, K)
        is_there = raw.isfinite()
        weights = is_there.float()                                                                   # (G, K)
        if not settings.even_groups:
            weights *= ~are_even(raw)[:, None]
        numbers = {
            "reward": float(raw.nanmean()) if is_there.any() else 0.0,
            "diversity": float(np.mean([row[2] for row in rows])),
            "even_groups": float(are_even(raw).float().mean()),
            "failed": float((~is_there).float().mean()),
        }
        for name in sorted({name for row in rows for name in row[1]}):
            numbers[f"reward/{name}"] = float(np.mean([row[1][name] for row in rows if name in row[1]]))
        likely, weights = (of_groups.reshape(-1, at_once * count) for of_groups in (likely, weights))
        return Rollouts(
            step, passes, {number: likely[number].to(self.device) for number in passes},
            {number: weights[number].to(self.device) for number in passes},
            numbers, time.perf_counter() - started_at,
        )  # fmt: skip

    def _drawn_pass(self, step: int, number: int) -> Pass:
        settings = self.settings
        groups = self._groups_of(number)
        prompts = [self._prompt_of(step * settings.prompts_per_step + group) for group in groups]
        rngs = [np.random.default_rng([settings.seed, step, group]) for group in groups]
        size, *_ = [int(rng.integers(len(self._sizes))) for rng in rngs]
        cells = self._drawer.cells(size)
        noise = [generator_for(settings.seed, "rl/noise", step, group) for group in groups]
        count, steps = settings.pictures_per_prompt, settings.rollout_steps
        latents = self._drawer.latents(OLD, prompts, cells, noise, count, steps)
        # The last step's start is left out: there is hardly any noise to learn at.
        own = sampling_sigmas(cells[0] * cells[1], steps)[:-2]
        places = np.stack([rng.permutation(len(own)) for rng in rngs for _ in range(count)])
        chosen = torch.from_numpy(places[:, : settings.times_per_picture])
        return Pass(prompts, latents, own[chosen].to(self.device))

    def _groups_of(self, number: int) -> range:
        """Return the groups of a pass, counted from the update's first."""
        first = number * self.settings.groups_per_pass
        return range(first, first + self.settings.groups_per_pass)

    def _noise_again(self, one: Pass, step: int, turn: int, number: int) -> Tensor:
        """Return the noise that a pass is learned from at one of its times, (g * K, C, h, w)."""
        settings = self.settings
        shape = (settings.pictures_per_prompt, *one.latents.shape[1:])
        draws = [
            generator_for(settings.seed, "rl/noise again", step, turn * settings.prompts_per_step + group)
            for group in self._groups_of(number)
        ]
        return torch.cat([torch.randn(shape, generator=draw) for draw in draws]).to(one.latents)

    def _prompt_of(self, turn: int) -> RLPrompt:
        """Return the prompt of a group, counted from the run's first: all by turns, then anew."""
        epoch, place = divmod(turn, len(self._prompts))
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self._prompts))
        return self._prompts[order[place]]

    def _velocity(self, role: str, text: TextBatch, noisy: Tensor, t: Tensor) -> Tensor:
        """Return the velocity of a role at points on the way to pictures, (B, C, h, w)."""
        h, w = noisy.shape[2:]
        with self._roles.acting(role) as denoiser, autocast(self.device, self.settings.precision):
            tokens = denoiser(
                hidden_states=pack_latents(noisy), encoder_hidden_states=text.features,
                encoder_hidden_states_mask=text.mask, timestep=t, img_shapes=[(1, h, w)], return_dict=False,
            )[0]  # fmt: skip
        return unpack_latents(tokens.float(), h, w)

    def _work(self, one: Pass, learned: int, first: bool, drawn: Rollouts) -> Work:
        """Return the work of one pass at one time; the drawing counts with the first of them."""
        cells = one.latents[0, 0].numel()
        lengths = [self._drawer.features(prompt).shape[1] for prompt in one.prompts]
        forward = sum(forward_flops(self._config, cells, length) for length in lengths) / len(lengths)
        count = len(one.latents) if first else 0
        passes = learned * (3 + 1 + bool(self.settings.kl_weight)) + count * self.settings.rollout_steps
        tokens = learned * (cells + sum(lengths) // len(lengths))
        return Work(count, tokens, passes * forward, drawn.elapsed_s / len(drawn.passes) if first else 0.0)

    def _pool_of(self, reward: Any, name: str) -> RewardPool:
        settings = self.settings
        rank, _ = own_rank()
        folder = settings.out / "rewards" / f"rank_{rank}"
        judge = reward_of(reward, folder, name)
        return RewardPool(judge, settings.reward_workers, settings.reward_timeout_s)

    def _pipeline(self, denoiser: Any) -> LensPipeline:
        return LensPipeline.from_pretrained(
            self._folder, transformer=denoiser, vae=self._encoders.vae,
            text_encoder=self._encoders.text_encoder, tokenizer=self._encoders.tokenizer,
        )  # fmt: skip


def _prompts_of(settings: RlSettings) -> list[RLPrompt]:
    if settings.prompts is not None:
        return read_prompts(settings.prompts)
    assert settings.nano_prompts is not None
    return nano_prompts(**settings.nano_prompts.model_dump())
