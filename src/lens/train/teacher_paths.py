"""Where a teacher ends from given noise, in its own many steps: drawn once, kept in the run's folder.

Knows nothing of how the teacher draws. Letters: B batch, C latent channels, h and w latent cells.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from lens.core.randomness import generator_for
from lens.train.batches import Batch, Batches
from lens.train.parallel import of_all_ranks, own_rank

FIRST_BATCH = 10**9
"""Batches from this update on, which no run comes to, are those that paths are drawn for."""


class TeacherPath(NamedTuple):
    """One batch of paths."""

    batch: Batch
    noise: Tensor
    """(B, C, h, w), where they begin."""
    end: Tensor
    """(B, C, h, w), the teacher's pictures."""


class TeacherPaths:
    """Paths of so many batches; ranks share the drawing out."""

    def __init__(
        self, folder: Path, batches: Batches, draw: Callable[[Tensor, Batch], Tensor], count: int, seed: int
    ):
        """Draw nothing yet; `draw` gives the teacher's pictures of noise and a batch."""
        self._folder, self._batches, self._draw = folder, batches, draw
        self._count, self._seed, self._is_filled = count, seed, False

    def of(self, step: int, index: int, device: torch.device) -> TeacherPath:
        """Return the paths of a micro-batch of an update."""
        rng = np.random.default_rng([self._seed, step, index])
        number = int(rng.integers(self._count))
        batch, noise = self._start(number, device)
        end = load_file(self._file(number))["end"].to(device)
        return TeacherPath(batch, noise, end.float())

    def fill(self, device: torch.device) -> None:
        """Draw those that are not in the folder yet; every rank must ask."""
        if self._is_filled:
            return
        rank, num_ranks = own_rank()
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = [number for number in range(self._count) if not self._file(number).is_file()]
        missing = of_all_ranks(missing)[0]  # as the first rank sees it, so that all make as many passes
        for turn in track(
            range(-(-len(missing) // num_ranks)), "Drawing the teacher's pictures", disable=rank > 0
        ):
            number = missing[min(turn * num_ranks + rank, len(missing) - 1)]
            batch, noise = self._start(number, device)
            end = self._draw(noise, batch)
            partial = self._file(number).with_suffix(f".{os.getpid()}.partial")
            save_file({"end": end.to(torch.bfloat16).cpu()}, partial)
            os.replace(partial, self._file(number))
        of_all_ranks(None)  # until all are there
        self._is_filled = True

    def _start(self, number: int, device: torch.device) -> tuple[Batch, Tensor]:
        batch = self._batches.of(FIRST_BATCH + number, 0).to(device)
        draw = generator_for(self._seed, "distill/paths", 0, number)
        return batch, torch.randn(batch.latents.shape, generator=draw).to(device)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"
