"""The process executor: pieces of work in parallel on this machine, without Ray.

Ray needs 15 s and a gigabyte before its first piece, which is more than a small build takes. The function of
a piece writes a complete file or none, so a piece may run twice and in any order.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from lens.errors import LensError

PARENT_CHECK_S = 1.0


class WorkerKilledError(LensError):
    """A process that ended inside a piece of work, most often for lack of memory."""

    def __init__(self):
        fix = "Lower num_workers, and run the same command again: what is finished is kept."
        super().__init__(f"A worker process was killed, probably because memory ran out. {fix}")


def map_in_processes(
    work: Callable[[Any], Any], items: Sequence[Any], num_workers: int | None
) -> Iterator[Any]:
    """Yield the results of all pieces, each as soon as it is done; an exception in a piece ends the build.

    `work` is a function of a module, or a partial of one, as it is pickled.
    Raises: WorkerKilledError.
    """
    if not items:
        return
    count = min(num_workers or len(os.sched_getaffinity(0)), len(items))
    # Forked: a script that builds data need not guard its main module, and workers start at once.
    context = multiprocessing.get_context("fork")
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        for future in as_completed([executor.submit(work, item) for item in items]):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerKilledError from error
    finally:
        # Where the build goes on, all pieces are done; else nobody waits for them.
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        executor.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)
