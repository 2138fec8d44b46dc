"""The Ray executor: pieces of work in parallel, on this machine or on a running cluster.

The function of a piece writes a complete file or none, so a piece may run twice and in any order.
"""

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lens.errors import LensError

WorkFunction = Callable[[Any], Any]


@contextmanager
def ray_session(address: str | None, num_workers: int | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine; disconnect, or stop it, afterwards."""
    import logging

    import ray

    if ray.is_initialized():
        yield
        return
    here = {"num_cpus": num_workers, "include_dashboard": False}
    options: dict[str, Any] = {"address": address} if address else here
    ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # The caller reports progress. This logger sets its own level when it is first used.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def is_connected() -> bool:
    """Return whether this process is connected to Ray already; Ray is not imported for it."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def has_gpus() -> bool:
    """Return whether the connected cluster has GPUs."""
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0


def map_parallel(
    work: WorkFunction, items: Sequence[Any], num_workers: int | None, gpus_per_worker: float = 0.0
) -> Iterator[Any]:
    """Yield the results of all pieces, each as soon as it is done; an exception in a piece ends the build.

    A LensError arrives as it was raised, without a trace of Ray. Ray hides all GPUs from work that does not
    ask for one.
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
