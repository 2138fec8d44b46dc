"""Processes that begin with the libraries imported, which takes five seconds of every start.

What a test kills, or runs on several ranks, is a process of its own all the same: it is forked from a server
that imported the libraries once and computed nothing. Where the claim is how a process starts (`python -m
lens`, `torchrun`), tests start it anew.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "torch.distributed.fsdp",
        "peft",
        "lens.sampling.pipeline",
        "lens.cli.main",
        "lens.train.run",
        "lens.train.trainer",
        "lens.train.stages.nano_pretrain",
        "lens.train.stages.rl",
        "lens.train.stages.distill",
    ]
)


@contextmanager
def forked(work: Callable[..., Any], *arguments: Any, log: Path, **env: str) -> Iterator[ForkServerProcess]:
    """Call a function, which is importable by its name, in a process; what it prints goes to a file.

    At the end of the `with` block the process is killed if it still runs.
    """
    process = SERVER.Process(target=_call, args=(work, arguments, log, env))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def on_ranks(num_ranks: int, work: Callable[..., Any], *arguments: Any, log: Path, **env: str) -> list[int]:
    """Call a function in so many processes of one run, as torchrun does; return their exit statuses.

    Where one fails the others are killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    env = env | meeting | {"WORLD_SIZE": str(num_ranks)}
    with ExitStack() as stack:
        processes = []
        for rank in map(str, range(num_ranks)):
            own = env | {"RANK": rank, "LOCAL_RANK": rank}
            processes.append(stack.enter_context(forked(work, *arguments, log=log, **own)))
        running = {process.sentinel: process for process in processes}
        while running:
            ended = [running.pop(one) for one in wait(list(running), timeout=300)]
            if not ended or any(process.exitcode for process in ended):
                break
    return [process.exitcode or 0 for process in processes]


def lens(*arguments: str) -> None:
    """Run the command as `python -m lens` does, the process its own."""
    from lens.cli.main import main

    sys.argv = ["lens", *arguments]
    raise SystemExit(main())


def _call(work: Callable[..., Any], arguments: tuple[Any, ...], log: Path, env: dict[str, str]) -> None:
    import torch

    os.environ.update(env)
    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    work(*arguments)
