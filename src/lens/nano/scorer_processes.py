"""The scorer in several processes: it is Python that holds its interpreter, some 20 ms a picture.

Processes start when the first picture comes and end with the program.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

from lens.nano.scorer import Detections, Picture, detect


def detected(pictures: Iterable[Picture], processes: int = 0) -> list[Detections]:
    """Return what pictures show, in their order; with no processes they are looked at here."""
    if not processes:
        return [detect(picture) for picture in pictures]
    futures: list[Future[Detections]] = [_pool(processes).submit(detect, picture) for picture in pictures]
    return [future.result() for future in futures]


@cache
def _pool(processes: int) -> ProcessPoolExecutor:
    # Not forked: a GPU that the parent uses is lost to a child that begins as its copy.
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
