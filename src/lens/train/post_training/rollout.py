"""Pictures of prompts that a role of a denoiser draws without guidance, and what they are judged to be worth.

Knows nothing of how anything is learned from them. Letters: G prompts, K pictures of each, C channels, h and
w latent cells, L captured layers, T text tokens, E their width.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Generator, Tensor

from lens.core.latents import pack_latents, unpack_latents
from lens.core.noise import generator_for
from lens.core.schedule import sampling_sigmas
from lens.models.prompt_template import pad_features
from lens.models.vae import decode_latents
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import Picture, Score
from lens.rl.rewards.pool import RewardPool, gathered
from lens.sampling.guided_denoiser import predicted_velocity
from lens.sampling.prompt_embeds import TextBatch
from lens.sampling.solvers import solver_named
from lens.train.data.encode import Encoders
from lens.train.devices import autocast
from lens.train.distributed import of_all_ranks, own_rank
from lens.train.post_training.policies import Roles


class Drawer:
    """Draws pictures of prompts in the sizes of a run."""

    def __init__(
        self, roles: Roles, encoders: Encoders, sizes: Sequence[tuple[int, int]], channels: int, solver: str,
        device: torch.device, precision: str,
    ):  # fmt: skip
        self._roles, self._vae, self._channels = roles, encoders.vae, channels
        self._sizes, self._solver = list(sizes), solver_named(solver)
        self._device, self._precision = device, precision
        self._encoders, self._known = encoders, dict[str, Tensor]()
        self._encoded: Callable[[str], Tensor] = lru_cache(256)(encoders.features)

    def encode(self, prompts: Sequence[RLPrompt], at_once: int) -> None:
        """Compute and keep the text features of all of these, so many a pass."""
        texts = list(dict.fromkeys(prompt.prompt for prompt in prompts))
        for start in range(0, len(texts), at_once):
            some = texts[start : start + at_once]
            self._known |= dict(zip(some, self._encoders.features_of(some), strict=True))

    def features(self, prompt: RLPrompt) -> Tensor:
        """Return the text features of a prompt, (L, T, E)."""
        known = self._known.get(prompt.prompt)
        return self._encoded(prompt.prompt) if known is None else known

    def cells(self, number: int) -> tuple[int, int]:
        """Return the latent cells of one of the sizes, by turns."""
        height_px, width_px = self._sizes[number % len(self._sizes)]
        return height_px // 16, width_px // 16

    @property
    def num_sizes(self) -> int:
        return len(self._sizes)

    @torch.no_grad()
    def latents(
        self, role: str, prompts: Sequence[RLPrompt], cells: tuple[int, int], noise: Sequence[Generator],
        count: int, steps: int,
    ) -> Tensor:  # fmt: skip
        """Return pictures of some prompts, each from its own noise, (G * K, C, h, w), prompt by prompt."""
        shape = (count, self._channels, *cells)
        starts = torch.cat([torch.randn(shape, generator=draw) for draw in noise])
        x = pack_latents(starts).to(self._device)                                           # (G * K, h*w, C)
        text = self.text(prompts, count)
        with self._roles.acting(role) as denoiser, autocast(self._device, self._precision):

            def velocity(x: Tensor, sigma: float) -> Tensor:
                return predicted_velocity(denoiser, x, sigma, text, cells, None)

            sigmas = sampling_sigmas(cells[0] * cells[1], steps)
            return unpack_latents(self._solver(velocity, sigmas, x), *cells)

    def text(self, prompts: Sequence[RLPrompt], count: int) -> TextBatch:
        """Return what the denoiser reads of some prompts, of each so many times."""
        rows = [self.features(prompt).float().to(self._device) for prompt in prompts]
        features, mask = pad_features([row.unbind(0) for row in rows])                      # L of (G, T, E)
        repeated = [layer.repeat_interleave(count, dim=0) for layer in features]
        return TextBatch(repeated, mask.to(self._device).repeat_interleave(count, dim=0))

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> list[Picture]:
        with autocast(self._device, self._precision):
            pixels = decode_latents(self._vae, latents)                                         # (K, 3, H, W)
        whole = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        return list(whole.cpu().numpy())


def screened(
    path: Path, drawer: Drawer, pool: RewardPool, prompts: list[RLPrompt], role: str, count: int, steps: int,
    seed: int, at_once: int,
) -> list[RLPrompt]:  # fmt: skip
    """Return the prompts of which a role does not draw so many pictures without any fault.

    Ranks share them out, so many a pass; the answer is kept in a file, and read where it is there.
    """
    if not path.is_file():
        of_size: dict[int, list[int]] = {}
        for number in range(len(prompts)):
            size = int(np.random.default_rng([seed, number]).integers(drawer.num_sizes))
            of_size.setdefault(size, []).append(number)
        passes = [
            (size, numbers[start : start + at_once])
            for size, numbers in sorted(of_size.items())
            for start in range(0, len(numbers), at_once)
        ]
        waiting = []
        for turn, is_own in shared_out(len(passes), "Screening prompts"):
            size, numbers = passes[turn]
            noise = [generator_for(seed, "rl/screening", 0, number) for number in numbers]
            asked = [prompts[number] for number in numbers]
            latents = drawer.latents(role, asked, drawer.cells(size), noise, count, steps)
            if is_own:
                pictures = drawer.pictures(latents)
                for place, number in enumerate(numbers):
                    own = pictures[place * count : (place + 1) * count]
                    waiting.append((number, pool.submit(own, [prompts[number]] * count)))
        faulty = [number for number, futures in waiting if not are_perfect(gathered(futures))]
        found = sorted(number for part in of_all_ranks(faulty) for number in part)
        if own_rank()[0] == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found))
        return [prompts[number] for number in found]
    return [prompts[number] for number in json.loads(path.read_text())]


def judged(
    drawer: Drawer, pool: RewardPool, prompts: list[RLPrompt], role: str, steps: int, seed: int
) -> tuple[dict[str, float], list[Picture]]:
    """Return what held-out prompts score, a picture each, by number, and this rank's pictures of one size."""
    shown, waiting = [], []
    for number, is_own in shared_out(len(prompts)):
        noise = [generator_for(seed, "rl/held_out", 0, number)]
        latents = drawer.latents(role, [prompts[number]], drawer.cells(number), noise, 1, steps)
        if is_own:
            (picture,) = drawer.pictures(latents)
            waiting += pool.submit([picture], [prompts[number]])
            shown += [picture] if number % drawer.num_sizes == 0 else []
    scores = [one for part in of_all_ranks(gathered(waiting)) for one in part]
    values = [one.value for one in scores if one.value is not None]
    parts = {f"held_out/{name}": value for name, value in mean_parts(scores).items()}
    failed = 1 - len(values) / len(scores)
    return {"held_out/reward": float(np.mean(values or [0.0])), "held_out/failed": failed} | parts, shown


def shared_out(count: int, told: str = "") -> Iterator[tuple[int, bool]]:
    """Yield this rank's share of so many numbers, and whether each is its own.

    Ranks that share weights make as many passes each: one that has no more does another's last.
    """
    rank, num_ranks = own_rank()
    for turn in track(range(-(-count // num_ranks)), told, disable=rank > 0 or not told):
        number = turn * num_ranks + rank
        yield min(number, count - 1), number < count


def mean_parts(scores: Sequence[Score]) -> dict[str, float]:
    """Return the mean of every part over the pictures that have it."""
    names = sorted({name for one in scores for name in one.parts})
    return {
        name: float(np.mean([one.parts[name] for one in scores if name in one.parts])) for name in names
    }


def are_perfect(scores: Sequence[Score]) -> bool:
    """Return whether all pictures got the highest score that there is."""
    return all(one.value is not None and one.value > 1 - 1e-6 for one in scores)
