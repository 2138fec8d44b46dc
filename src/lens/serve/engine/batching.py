"""Pictures that are being drawn, each at a step of its own, and one pass of the denoiser over all of them.

Guidance makes a picture two passes: with its prompt, and with its negative prompt or no text at all. Passes
of any sizes, steps and guidance go through the denoiser as one packed sequence.
Knows nothing of queues or callers. Letters: I image tokens, T text tokens, C channels of an image token.
"""

import gc
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.core.guidance import guided_velocity
from lens.errors import MemoryNeedError
from lens.sampling.guided_denoiser import Known, working_dtype
from lens.sampling.inputs import Source
from lens.sampling.solvers import Steps
from lens.serve.engine.prompt_cache import Features

log = logging.getLogger(__name__)


class Pass(NamedTuple):
    """One picture of a packed sequence."""

    x: Tensor
    """(I, C)"""
    sigma: float
    text: Features
    cells: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        return len(self.x) + len(self.text[0])


@dataclass
class Slot:
    """A picture on its way: where it is, and what leads it on."""

    x: Tensor
    """(1, I, C), float32"""
    levels: list[float]
    """Noise levels from the first to 0."""
    known: Known | None
    source: Source
    cells: tuple[int, int]
    guidance: float
    towards: Features
    away: Features
    """What guidance leads away from; unused without it."""
    take_step: Steps
    previews_at: tuple[int, ...] = ()
    """Steps after which a preview is wanted."""
    step: int = 0
    """Steps done."""

    @property
    def num_steps(self) -> int:
        return len(self.levels) - 1

    @property
    def is_drawn(self) -> bool:
        return self.step == self.num_steps

    def passes(self) -> list[Pass]:
        """Return what the denoiser is asked for the next step."""
        texts = [self.towards] if self.guidance == 1 else [self.towards, self.away]
        return [Pass(self.x[0], self.levels[self.step], text, self.cells) for text in texts]

    def advance(self, answers: Sequence[Tensor]) -> Tensor | None:
        """Take a step along the denoiser's answers to `passes`; return the clean estimate if it is wanted.

        Shapes: answers (I, C) -> (1, I, C).
        """
        slope = answers[0][None]  # (1, I, C)
        if len(answers) > 1:
            slope = guided_velocity(slope, answers[1][None], self.guidance)
        sigma, after = self.levels[self.step : self.step + 2]
        x, self.step = self.x, self.step + 1
        self.x = self._with_known(self.take_step(x, slope, sigma, after), after)
        return self._with_known(x - sigma * slope, 0.0) if self.step in self.previews_at else None

    def _with_known(self, x: Tensor, sigma: float) -> Tensor:
        return x if self.known is None else self.known.put_back(x, sigma)


def preview_steps(num_steps: int, wanted: int) -> tuple[int, ...]:
    """Return the steps after which previews are made, evenly spread; fewer where there are too few steps."""
    spread = {round(num_steps * (number + 1) / (wanted + 1)) for number in range(wanted)}
    return tuple(sorted(step for step in spread if 0 < step < num_steps))


class Packer:
    """Puts passes through a denoiser, as many at once as memory allows."""

    def __init__(self, pack_tokens: int):
        self.pack_tokens = pack_tokens

    def velocities(self, denoiser: Any, passes: Sequence[Pass]) -> list[Tensor | Exception]:
        """Return the velocity of each pass in float32, or the error that belongs to it alone.

        Shapes: -> (I, C) each.
        """
        answers: list[Tensor | Exception] = []
        for pack in packs(passes, self.pack_tokens):
            answers += self._tried(denoiser, pack)
        return answers

    def _tried(self, denoiser: Any, pack: Sequence[Pass]) -> list[Tensor | Exception]:
        try:
            return list(packed_velocities(denoiser, pack))
        except Exception as error:
            # Its traceback holds on to the tensors that there was no room for.
            problem = error.with_traceback(None)
        if is_out_of_memory(problem):
            self._shrink(sum(one.num_tokens for one in pack))
            remedy = "Ask for a smaller picture."
            problem = MemoryNeedError(f"Memory ran out while drawing ({_first_line(problem)}). {remedy}")
        if len(pack) == 1:
            return [problem]
        half = len(pack) // 2
        return self._tried(denoiser, pack[:half]) + self._tried(denoiser, pack[half:])

    def _shrink(self, num_tokens: int) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if num_tokens // 2 < self.pack_tokens:
            self.pack_tokens = max(1, num_tokens // 2)
            log.warning("Memory ran out at %d tokens; packs hold %d now.", num_tokens, self.pack_tokens)


def packs(passes: Sequence[Pass], max_tokens: int) -> Iterator[list[Pass]]:
    """Yield passes in their order, as many at once as the tokens allow; a larger one goes alone."""
    pack: list[Pass] = []
    for one in passes:
        if pack and sum(other.num_tokens for other in pack) + one.num_tokens > max_tokens:
            yield pack
            pack = []
        pack.append(one)
    if pack:
        yield pack


def packed_velocities(denoiser: Any, pack: Sequence[Pass]) -> Sequence[Tensor]:
    """Return what the denoiser says of a pack, in float32.

    Shapes: -> (I, C) each.
    """
    dtype, device = working_dtype(denoiser), pack[0].x.device
    pictures, texts = [one.x.to(dtype) for one in pack], [one.text for one in pack]
    is_alone = len(pack) == 1  # then a batch of one takes a fifth less time
    velocities = denoiser(
        hidden_states=pictures[0][None] if is_alone else pictures,
        encoder_hidden_states=[layer[None] for layer in texts[0]] if is_alone else texts,
        timestep=torch.tensor([one.sigma for one in pack], dtype=torch.float32, device=device),
        img_shapes=[(1, *one.cells) for one in pack],
        return_dict=False,
    )[0]
    return [velocity.float() for velocity in velocities]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: torch.OutOfMemoryError, or the CPU allocator's plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        "out of memory" in str(error) or "DefaultCPUAllocator" in str(error)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
