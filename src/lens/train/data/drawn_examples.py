"""Examples of the nano world before they are encoded: pictures, captions and patch labels.

Free of torch, so that the processes that draw start quickly. Letters: N examples, H and W pixels, K kinds of
label, h and w latent patches.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.patch_labels import patch_labels
from lens.nano.world.scenes import Scene, draw_scene


class World(Protocol):
    """Scenes with captions: WorldConfig, the world of the six tasks, or CaptionMix, the whole one."""

    def example(self, seed: int, index: int, height_px: int, width_px: int) -> tuple[Scene, str]:
        """Return one scene and its caption, which depend on the arguments only."""
        ...


class DrawingTask(NamedTuple):
    """Consecutive examples of one image size."""

    world: World
    seed: int
    numbers: range
    size_px: tuple[int, int]

    def examples(self) -> list[tuple[Scene, str]]:
        """Return the scenes and their captions."""
        return [self.world.example(self.seed, number, *self.size_px) for number in self.numbers]

    def captions(self) -> list[str]:
        """Return the captions."""
        return [caption for _, caption in self.examples()]


class DrawnPictures(NamedTuple):
    """Pictures of consecutive examples."""

    pixels: NDArray[np.float32]
    """(N, 3, H, W) in [-1, 1]."""
    labels: NDArray[np.uint8]
    """(N, K, h, w)."""


def draw_pictures(task: DrawingTask) -> DrawnPictures:
    """Draw the pictures of a task."""
    scenes = [scene for scene, _ in task.examples()]
    pixels = np.stack([draw_scene(scene) for scene in scenes])                                  # (N, 3, H, W)
    labels = np.stack([np.stack(patch_labels(scene)) for scene in scenes]).astype(np.uint8)  # (N, K, h, w)
    return DrawnPictures(pixels, labels)


def draw_in_processes(tasks: Iterable[DrawingTask], num_processes: int) -> Iterator[DrawnPictures]:
    """Yield the pictures of some tasks in their order, drawn by several processes at once."""
    # Otherwise each process would start as many threads as there are cores.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Spawned, not forked: a forked child cannot use the GPU of its parent.
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        pending: deque[Future[DrawnPictures]] = deque()
        for task in tasks:
            pending.append(pool.submit(draw_pictures, task))
            if len(pending) > 2 * num_processes:  # no more, as a shard has 50 MB of pixels
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
