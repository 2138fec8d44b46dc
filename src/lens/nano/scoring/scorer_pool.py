"""Scoring in several processes, as it takes about 40 ms of Python an image.

Processes start with the first image and end with the program.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache, partial
from itertools import repeat
from multiprocessing import get_context
from typing import Any

from lens.nano.scoring.scorer import Detections, ImageArray, detect

CHUNK_SIZE = 8
"""Images per job of a process; each result interrupts this process, which has a GPU to feed."""


def detect_all(images: Iterable[ImageArray], num_processes: int = 0) -> list[Detections]:
    """Return the detections of images, in order; without processes they are scored in this one."""
    if not num_processes:
        return [detect(image) for image in images]
    return [
        future.result() for future in submit_calls(detect, [(picture,) for picture in images], num_processes)
    ]


def submit_calls(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], num_processes: int
) -> list[Future[Any]]:
    """Return at once a future for each call of a function that can be pickled."""
    futures = [Future[Any]() for _ in calls]
    for start in range(0, len(calls), CHUNK_SIZE):
        some = slice(start, start + CHUNK_SIZE)
        job = _pool(num_processes).submit(_run_calls, function, calls[some])
        job.add_done_callback(partial(_resolve_futures, futures[some]))
    return futures


def _run_calls(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [function(*call) for call in calls]


def _resolve_futures(futures: list[Future[Any]], job: Future[list[Any]]) -> None:
    error = job.exception()
    for future, result in zip(futures, repeat(None) if error else job.result(), strict=False):
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)


@cache
def _pool(num_processes: int) -> ProcessPoolExecutor:
    # Otherwise each process would start as many threads as there are cores.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Spawned, not forked: a forked child cannot use the GPU of its parent.
    return ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"))
