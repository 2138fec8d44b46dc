"""Load `lens serve` from a process of its own: many clients at once, against like requests one by one.

The server is a child process on a free port of this machine, as anyone would start it: pictures are marked
and signed. Requests go in turn through all ratios of a base and all models, each with words of its own. In
each round some are asked one by one, then others by all clients at once, so that both meet the same load of
the machine. Every picture is decoded and measured. A 429 is asked again after its Retry-After, and that wait
is part of the latency. Lost is whatever ends with neither a picture nor a 429. The client says how busy it
was itself, and how late it woke up: /healthz cannot look better than that.

    python benchmarks/serve_load.py                                              # 1,000 requests, 64 clients
    python benchmarks/serve_load.py --requests 60 --clients 8                    # a first look
    python benchmarks/serve_load.py --requests 60 --set engine.max_waiting=4     # a queue that says no
"""

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import psutil
from PIL import Image

from lens.core.resolution import buckets_for
from lens.nano.tasks import training_example
from serve_load_numbers import LOST, PICTURE, REFUSED, Goals, Load, Outcome, missed, numbers_of, show

READY_WITHIN_S = 120.0
ANSWERED_WITHIN_S = 300.0
"""An answer that takes longer is lost; so long a request is asked again after 429s."""
LOOK_EVERY_S = 0.1
"""Pause between two looks at /healthz."""
ENDS_WITHIN_S = 30.0


class Ask(NamedTuple):
    """A request, and the (width, height) that its picture must have."""

    body: dict[str, Any]
    size: tuple[int, int]


def main() -> int:
    asked = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends as well
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="lens-load-") as folder, served(asked, Path(folder)) as server:
        load = asyncio.run(loaded(asked, *server))
    numbers = numbers_of(load)
    goals = Goals(ratio=asked.least_ratio)
    show(numbers, asked.clients)
    failures = missed(numbers, goals)
    for failure in failures:
        print(f"MISSED: {failure}")
    if asked.json:
        machine = {"system": platform.platform(), "processors": os.cpu_count()}
        machine |= {"load_before": load_before, "load_after": os.getloadavg()}
        facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine}
        results = {"numbers": numbers, "goals": goals._asdict(), "missed": failures}
        document = facts | {"options": vars(asked)} | results
        asked.json.write_text(json.dumps(document, indent=1, default=str) + "\n")
    return 1 if failures else 0


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--requests", type=int, default=1000, help="asked by all clients together")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--one-by-one", type=int, default=72,
        help="requests of the baseline; rounds x ratios x models of them hold every kind equally often",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=4, help="blocks that the two kinds take turns in")
    parser.add_argument("--warm-up", type=int, default=200, help="requests before memory must be flat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=["lens-nano-turbo", "lens-nano"])
    parser.add_argument("--steps", type=int, default=4, help="of every picture")
    parser.add_argument("--base", type=int, default=128, help="base resolution")
    parser.add_argument("--device", default="cpu", help="of the server")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the server")
    parser.add_argument("--least-ratio", type=float, default=Goals().ratio, help="goal of the throughputs")
    parser.add_argument("--limit-s", type=float, default=1800, help="end by then; what is open is lost")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    asked = parser.parse_args()
    for name in ("requests", "clients", "one_by_one", "rounds", "warm_up"):
        if getattr(asked, name) < 1:
            parser.error(f"--{name.replace('_', '-')} needs at least 1")
    return asked


@contextmanager
def served(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server; yields its address and its process, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from lens.cli.main import main; raise SystemExit(main())", "serve"]
    command += ["--port", str(port), "--state", str(folder / "state"), "--device", asked.device]
    for model in asked.models:
        command += ["--model", model]
    for setting in asked.set:
        command += ["--set", setting]
    log = folder / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until_ready(base, server, log)
        yield base, psutil.Process(server.pid)
    finally:
        server.terminate()
        try:
            server.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_ready(base: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until the models are loaded; exit with the server's log where that fails."""
    give_up_at = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_at and server.poll() is None:
        try:
            if httpx2.get(f"{base}/readyz", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # it does not listen yet
        time.sleep(0.1)
    sys.exit(f"The server is not ready.\n{log.read_text(errors='replace')[-2000:]}")


def asks(count: int, first: int, asked: argparse.Namespace) -> list[Ask]:
    """Return requests number `first` and on: models and ratios in turn, words and seeds of their own."""
    sizes = buckets_for(asked.base)
    kinds = [(model, ratio) for ratio in sizes for model in asked.models]
    made = []
    for number in range(first, first + count):
        model, ratio = kinds[number % len(kinds)]
        height, width = sizes[ratio]
        caption = training_example(asked.seed, number, height, width)[1]
        body = {"model": model, "prompt": caption, "base_resolution": asked.base, "aspect_ratio": ratio}
        made.append(Ask(body | {"steps": asked.steps, "seed": number}, (width, height)))
    return made


def shares(total: int, parts: int) -> list[int]:
    """Divide a number into parts that differ by at most 1."""
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]


async def loaded(asked: argparse.Namespace, base: str, server: psutil.Process) -> Load:
    """Put the whole load on a server; what is not answered within the limit stays open."""
    load = Load(asked.requests, asked.one_by_one, asked.warm_up)
    load.memory_bytes["start"] = memory_of(server)
    client = httpx2.AsyncClient(
        base_url=base, timeout=ANSWERED_WITHIN_S, limits=httpx2.Limits(max_connections=None), trust_env=False
    )
    async with client:
        try:
            async with asyncio.timeout(asked.limit_s):
                await rounds(asked, client, server, load)
        except TimeoutError:
            print(f"the time limit of {asked.limit_s:g} s is over", file=sys.stderr)
    if server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        load.memory_bytes["end"] = memory_of(server)
    return load


async def rounds(
    asked: argparse.Namespace, client: httpx2.AsyncClient, server: psutil.Process, load: Load
) -> None:
    """Ask one by one and all at once, in turn."""
    kinds = len(buckets_for(asked.base)) * len(asked.models)
    first = kinds
    for ask in asks(kinds, 0, asked):  # neither side pays for what a server does but once
        await answered(client, ask)
    for alone, together in zip(
        shares(asked.one_by_one, asked.rounds), shares(asked.requests, asked.rounds), strict=True
    ):
        for ask in asks(alone, first, asked):
            load.alone.append(await answered(client, ask))
        await all_at_once(asks(together, first + alone, asked), asked.clients, client, server, load)
        first += alone + together
        print(f"{len(load.together)} of {asked.requests} asked", file=sys.stderr)


async def all_at_once(
    todo: list[Ask], clients: int, client: httpx2.AsyncClient, server: psutil.Process, load: Load
) -> None:
    """Let clients ask until nothing is left, each one picture at a time; look at /healthz meanwhile."""
    left = iter(todo)

    async def one_client() -> None:
        for ask in left:
            load.together.append(await answered(client, ask))
            if len(load.together) == load.warm_up:
                load.memory_bytes["warm"] = memory_of(server)

    watching = asyncio.create_task(watch(client, server, load))
    started_at, worked_s = time.perf_counter(), time.process_time()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(one_client())
    finally:
        load.together_s += time.perf_counter() - started_at
        load.client_s += time.process_time() - worked_s
        watching.cancel()


async def watch(client: httpx2.AsyncClient, server: psutil.Process, load: Load) -> None:
    """Look again and again whether the server says that it lives, and how large it is."""
    while True:
        slept_at = time.perf_counter()
        await asyncio.sleep(LOOK_EVERY_S)
        asked_at = time.perf_counter()
        load.late_s.append(asked_at - slept_at - LOOK_EVERY_S)
        try:
            response = await client.get("/healthz")
            load.health_s.append(time.perf_counter() - asked_at)
            load.num_unhealthy += response.status_code != 200
            load.memory_bytes["highest"] = max(load.memory_bytes.get("highest", 0), memory_of(server))
        except (httpx2.HTTPError, psutil.NoSuchProcess):
            load.num_unhealthy += 1


async def answered(client: httpx2.AsyncClient, ask: Ask) -> Outcome:
    """Ask for a picture until it comes, or something else does than a 429."""
    started_at, num_refusals = time.perf_counter(), 0
    while True:
        try:
            response = await client.post("/v1/images/generations", json=ask.body)
        except httpx2.HTTPError as error:
            return Outcome(LOST, time.perf_counter() - started_at, num_refusals, repr(error))
        elapsed_s = time.perf_counter() - started_at
        retry_after = response.headers.get("Retry-After", "")
        if response.status_code != 429 or not retry_after.isdigit():
            problem = await asyncio.to_thread(problem_of, response.status_code, response.content, ask.size)
            return Outcome(LOST if problem else PICTURE, elapsed_s, num_refusals, problem)
        num_refusals += 1
        if elapsed_s + int(retry_after) > ANSWERED_WITHIN_S:
            return Outcome(REFUSED, elapsed_s, num_refusals)
        await asyncio.sleep(int(retry_after))


def problem_of(status: int, content: bytes, size: tuple[int, int]) -> str:
    """Return what is wrong with an answer that should hold one picture of a size; nothing where it does."""
    if status != 200:
        return f"{status}: {content[:200].decode(errors='replace')}"
    try:
        (picture,) = json.loads(content)["data"]
        with Image.open(io.BytesIO(base64.b64decode(picture["b64_json"], validate=True))) as image:
            image.load()
            return "" if image.size == size else f"a picture of {image.size} where {size} was asked for"
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"no picture: {error!r}"


def memory_of(server: psutil.Process) -> int:
    """Return the resident bytes of a server and of its children."""
    total = 0
    for process in (server, *server.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # a child that has just ended holds nothing
    return total


if __name__ == "__main__":
    raise SystemExit(main())
