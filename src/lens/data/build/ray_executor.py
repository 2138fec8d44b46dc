"""Pieces of work through Ray Data: on this machine, or on a cluster that is there already.

A piece is done by a function that leaves a complete file or none, so it may be done twice and in any order.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lens.errors import LensError

WorkFunction = Callable[[Any], Any]


@contextmanager
def ray_session(address: str | None, num_workers: int | None) -> Iterator[None]:
    """Connect to a cluster for the length of a `with` block, or start Ray here and stop it afterwards."""
    import logging

    import ray

    if ray.is_initialized():
        yield
        return
    here = {"num_cpus": num_workers, "include_dashboard": False}
    options: dict[str, Any] = {"address": address} if address else here
    ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Its progress is told by whoever takes the results; it sets its own level when it is first used.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def has_gpus() -> bool:
    """Return whether the cluster that we are connected to has any."""
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0


def map_parallel(
    work: WorkFunction, items: Sequence[Any], num_workers: int | None, gpus_per_worker: float = 0.0
) -> Iterator[Any]:
    """Yield the results of all pieces, each as soon as it is done; what a piece raises ends the build.

    A LensError arrives as it was raised, not wrapped into a trace of Ray's. Ray hides all GPUs from work that
    does not ask for one.
    """
    import ray

    if not items:
        return
    rows = [{"piece": piece} for piece in items]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    at_once = ray.data.TaskPoolStrategy(size=num_workers) if num_workers else None
    gpus = gpus_per_worker or None

    def run_one(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": work(row["piece"]), "error": b""}
        except LensError as error:
            return {"result": None, "error": pickle.dumps(error)}

    for row in dataset.map(run_one, compute=at_once, num_gpus=gpus).iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        yield row["result"]
