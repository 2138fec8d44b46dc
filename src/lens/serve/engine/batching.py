"""Continuous batching: images at different steps share one forward pass of the denoiser.

With guidance, an image needs two inputs of a pass: its prompt, and its negative prompt or no text. Inputs
of any size, step and guidance are packed into one sequence. Those of an image with a cache of denoising steps
run alone, as the cache decides for each whether it is computed.
Knows nothing of queues or callers. Letters: I image tokens, T text tokens, C channels of an image token.
"""

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.core.guidance import cfg_norm_rescaled
from lens.errors import MemoryNeedError, first_line
from lens.models.memory import is_out_of_memory
from lens.models.step_cache import ImageCache
from lens.models.velocity import compute_dtype, predict_token_velocity
from lens.sampling.guided_denoiser import InpaintContext
from lens.sampling.inputs import SourceImages
from lens.sampling.solvers import Solver
from lens.serve.engine.prompt_cache import PromptFeatures

logger = logging.getLogger(__name__)


class ForwardInput(NamedTuple):
    """One image of a packed sequence."""

    image_tokens: Tensor
    """(I, C)"""
    sigma: float
    text_features: PromptFeatures
    latent_size: tuple[int, int]
    pass_name: str = "cond"
    """cond, or uncond."""
    cache: ImageCache | None = None
    """That of the image; an input with one is a batch of its own."""

    @property
    def num_tokens(self) -> int:
        return len(self.image_tokens) + len(self.text_features[0])


@dataclass
class DenoisingState:
    """An image between two steps: its latents, and everything that its next steps need."""

    x: Tensor
    """(1, I, C), float32"""
    sigmas: list[float]
    """Noise levels from the first to 0."""
    inpaint: InpaintContext | None
    source: SourceImages
    latent_size: tuple[int, int]
    guidance: float
    cond: PromptFeatures
    uncond: PromptFeatures
    """Features of the negative prompt; unused without guidance."""
    solver: Solver
    cache: ImageCache | None = None
    preview_steps: tuple[int, ...] = ()
    """Steps after which a preview is due."""
    step: int = 0
    """Steps done."""
    num_evaluations: int = 0
    """Velocities received for the current step."""
    preview: Tensor | None = None
    """(1, I, C) estimate of the clean latents, from the start of a step in `preview_steps`."""

    def __post_init__(self) -> None:
        self._solver_step = self.solver.new_step()
        self._start_step()

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def latents_to_decode(self) -> Tensor | None:
        """Latents of the finished image or of the preview that is due; None in between."""
        if self.is_finished:
            return self.x
        return self.preview if self.num_evaluations == 0 else None

    @property
    def num_evaluations_left(self) -> int:
        """Velocities that are still needed to finish the image."""
        return (self.num_steps - self.step) * self.solver.num_velocities - self.num_evaluations

    @property
    def is_finished(self) -> bool:
        return self.step == self.num_steps

    def forward_inputs(self) -> list[ForwardInput]:
        """Return the inputs whose velocities `advance` needs next."""
        x, sigma = self._evaluation
        texts = {"cond": self.cond} if self.guidance == 1 else {"cond": self.cond, "uncond": self.uncond}
        return [
            ForwardInput(x[0], sigma, text, self.latent_size, name, self.cache)
            for name, text in texts.items()
        ]

    def advance(self, velocities: Sequence[Tensor]) -> None:
        """Use the velocities of `forward_inputs`; a step ends once the solver has all that it needs.

        Shapes: velocities (I, C) each.
        """
        velocity = velocities[0][None]  # (1, I, C)
        if len(velocities) > 1:
            velocity = cfg_norm_rescaled(velocity, velocities[1][None], self.guidance)
        if self.num_evaluations == 0:
            x, sigma = self._evaluation
            is_due = self.step + 1 in self.preview_steps
            self.preview = self._blend_known(x - sigma * velocity, 0.0) if is_due else None
        try:
            self._evaluation = self._evaluations.send(velocity)
            self.num_evaluations += 1
            return
        except StopIteration as end:
            x_next = end.value
        self.step, self.num_evaluations = self.step + 1, 0
        self.x = self._blend_known(x_next, self.sigmas[self.step])
        if not self.is_finished:
            self._start_step()

    def _start_step(self) -> None:
        self._evaluations = self._solver_step(self.x, *self.sigmas[self.step : self.step + 2])
        self._evaluation = next(self._evaluations)

    def _blend_known(self, x: Tensor, sigma: float) -> Tensor:
        return x if self.inpaint is None else self.inpaint.blend_known(x, sigma)


def preview_schedule(num_steps: int, num_previews: int) -> tuple[int, ...]:
    """Return the steps after which previews are due, evenly spaced; fewer if there are too few steps."""
    spread = {round(num_steps * (number + 1) / (num_previews + 1)) for number in range(num_previews)}
    return tuple(sorted(step for step in spread if 0 < step < num_steps))


class BatchExecutor:
    """Runs inputs through a denoiser, in batches as large as memory allows."""

    def __init__(self, max_batch_tokens: int):
        self.max_batch_tokens = max_batch_tokens

    def predict_velocities(self, denoiser: Any, inputs: Sequence[ForwardInput]) -> list[Tensor | Exception]:
        """Return the velocity of each input in float32, or the error of that input alone.

        Shapes: -> (I, C) each.
        """
        answers: list[Tensor | Exception] = []
        for batch in split_batches(inputs, self.max_batch_tokens):
            answers += self._run_batch(denoiser, batch)
        return answers

    def _run_batch(self, denoiser: Any, batch: Sequence[ForwardInput]) -> list[Tensor | Exception]:
        try:
            return list(predict_packed_velocities(denoiser, batch))
        except Exception as error:
            # The traceback keeps the tensors of the failed pass in memory.
            problem = error.with_traceback(None)
        if is_out_of_memory(problem):
            self._reduce_batch_size(sum(one.num_tokens for one in batch))
            remedy = "Request a smaller image."
            problem = MemoryNeedError(f"The denoiser ran out of memory ({first_line(problem)}). {remedy}")
        if len(batch) == 1:
            return [problem]
        half = len(batch) // 2
        return self._run_batch(denoiser, batch[:half]) + self._run_batch(denoiser, batch[half:])

    def _reduce_batch_size(self, num_tokens: int) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if num_tokens // 2 < self.max_batch_tokens:
            self.max_batch_tokens = max(1, num_tokens // 2)
            logger.warning(
                "out of memory at %d tokens; a batch holds at most %d from now on",
                num_tokens,
                self.max_batch_tokens,
            )


def split_batches(inputs: Sequence[ForwardInput], max_tokens: int) -> Iterator[list[ForwardInput]]:
    """Yield batches of inputs in order, within the token limit.

    A larger input, and one with a cache, is a batch of its own.
    """
    batch: list[ForwardInput] = []
    for one in inputs:
        is_alone = one.cache is not None or any(other.cache is not None for other in batch)
        if batch and (is_alone or sum(other.num_tokens for other in batch) + one.num_tokens > max_tokens):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def predict_packed_velocities(denoiser: Any, batch: Sequence[ForwardInput]) -> Sequence[Tensor]:
    """Return the velocities of a batch in float32, from one forward pass.

    Shapes: -> (I, C) each.
    """
    image_tokens, text_features = [one.image_tokens for one in batch], [one.text_features for one in batch]
    is_alone = len(batch) == 1  # then a batch of one takes a fifth less time
    cache = batch[0].cache
    with nullcontext() if cache is None else denoiser.cached_pass(cache, batch[0].pass_name):
        velocities = predict_token_velocity(
            denoiser,
            image_tokens[0][None] if is_alone else image_tokens,
            torch.tensor([one.sigma for one in batch], dtype=torch.float32, device=image_tokens[0].device),
            [layer[None] for layer in text_features[0]] if is_alone else text_features,
            latent_sizes=[one.latent_size for one in batch],
            dtype=compute_dtype(denoiser),
        )
    return list(velocities)
