"""What a load on a server amounts to: outcomes counted, percentiles, the goals that were missed.

Knows nothing of how it was measured.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PICTURE, REFUSED, LOST = "picture", "refused", "lost"


class Goals(NamedTuple):
    """What a server should reach."""

    ratio: float = 1.0
    """Throughput of all clients at once over that of one by one, at least."""
    health_p99_s: float = 0.1
    """Slowest of a hundred answers of /healthz stays below."""
    growth: float = 0.1
    """Share by which memory may grow after the warm-up."""


class Outcome(NamedTuple):
    """How a request ended."""

    how: str
    elapsed_s: float
    """From the first try on, waits after 429s included."""
    num_refusals: int = 0
    problem: str = ""


@dataclass
class Load:
    """What was measured. Requests that are neither here nor there when it ends are lost."""

    num_asked: int
    num_asked_alone: int
    warm_up: int
    together: list[Outcome] = field(default_factory=list)
    together_s: float = 0.0
    alone: list[Outcome] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    num_unhealthy: int = 0
    late_s: list[float] = field(default_factory=list)
    """How late the client itself woke up."""
    client_s: float = 0.0
    """Processor seconds of the client while all asked at once."""
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """At the `start`, after the warm-up (`warm`), at the `end`, and the `highest` seen."""


def percentile(values: list[float], share: float) -> float | None:
    """Return the smallest value that this share of all do not exceed (nearest rank); None of none."""
    if not values:
        return None
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def counted(outcomes: list[Outcome], num_asked: int) -> dict[str, int]:
    """Count how requests ended; what never ended is lost."""
    by_how = Counter(outcome.how for outcome in outcomes)
    kept = {PICTURE: by_how[PICTURE], REFUSED: by_how[REFUSED]}
    refusals = sum(outcome.num_refusals for outcome in outcomes)
    return kept | {LOST: num_asked - sum(kept.values()), "refusals": refusals}


def latencies(outcomes: list[Outcome]) -> dict[str, float | None]:
    """Return percentiles of the seconds to a picture."""
    seconds = [outcome.elapsed_s for outcome in outcomes if outcome.how == PICTURE]
    return {f"p{percent}_s": percentile(seconds, percent / 100) for percent in (50, 95, 99)}


def rate(outcomes: list[Outcome], elapsed_s: float) -> float:
    """Return pictures a second."""
    pictures = sum(outcome.how == PICTURE for outcome in outcomes)
    return pictures / elapsed_s if elapsed_s > 0 else 0.0


def numbers_of(load: Load) -> dict[str, Any]:
    """Return the results of a load."""
    # One by one the client's own work between two requests is left out, which favors the baseline.
    alone_s = sum(outcome.elapsed_s for outcome in load.alone)
    together, alone = rate(load.together, load.together_s), rate(load.alone, alone_s)
    problems = Counter(outcome.problem for outcome in (*load.together, *load.alone) if outcome.problem)
    return {
        "together": counted(load.together, load.num_asked)
        | latencies(load.together) | {"elapsed_s": load.together_s, "pictures_per_s": together},
        "alone": counted(load.alone, load.num_asked_alone)
        | latencies(load.alone) | {"elapsed_s": alone_s, "pictures_per_s": alone},
        "ratio": together / alone if alone else None,
        "health": {"looks": len(load.health_s), "failed": load.num_unhealthy}
        | {f"p{percent}_s": percentile(load.health_s, percent / 100) for percent in (50, 99)},
        "client": {
            "busy_share": load.client_s / load.together_s if load.together_s else None,
            "late_p99_s": percentile(load.late_s, 0.99),
        },
        "memory_bytes": load.memory_bytes,
        "growth": growth(load),
        "problems": dict(problems.most_common(10)),
    }  # fmt: skip


def growth(load: Load) -> float | None:
    """Return by which share memory grew after the warm-up.

    None where as much again as the warm-up did not follow it: that says nothing about a plateau.
    """
    if load.num_asked < 2 * load.warm_up or not {"warm", "end"} <= load.memory_bytes.keys():
        return None
    return load.memory_bytes["end"] / load.memory_bytes["warm"] - 1


def missed(numbers: dict[str, Any], goals: Goals) -> list[str]:
    """Say which goals were missed."""
    found = []
    for kind, name in (("together", "all at once"), ("alone", "one by one")):
        if numbers[kind][LOST]:
            found.append(f"{numbers[kind][LOST]} requests {name} ended with neither a picture nor a 429")
    if numbers["ratio"] is None or numbers["ratio"] < goals.ratio:
        found.append(f"needs {goals.ratio:g}x the pictures a second of one by one")
    health = numbers["health"]
    if health["failed"]:
        found.append(f"/healthz failed {health['failed']} times")
    if health["p99_s"] is None or health["p99_s"] >= goals.health_p99_s:
        found.append(f"/healthz needs a p99 under {goals.health_p99_s * 1000:g} ms")
    if numbers["growth"] is not None and numbers["growth"] > goals.growth:
        found.append(f"memory may grow by {goals.growth:.0%} after the warm-up")
    return found


def show(numbers: dict[str, Any], clients: int) -> None:
    """Print the results."""
    columns = (PICTURE, REFUSED, LOST, "refusals")
    titles = ("pictures", "refused", "lost", "429s", "p50 s", "p95 s", "p99 s", "pictures/s", "ratio")
    print(f"{'':<14}" + "".join(f"{title:>11}" for title in titles))
    rows = (("one by one", "alone", 1.0), (f"{clients} clients", "together", numbers["ratio"]))
    for name, kind, ratio in rows:
        row = numbers[kind]
        counts = "".join(f"{row[column]:>11}" for column in columns)
        measures = (*(row[f"p{percent}_s"] for percent in (50, 95, 99)), row["pictures_per_s"], ratio)
        print(f"{name:<14}{counts}" + "".join(f"{_text(value):>11}" for value in measures))
    health, client, memory = numbers["health"], numbers["client"], numbers["memory_bytes"]
    print(f"/healthz meanwhile: p50 {_ms(health['p50_s'])}, p99 {_ms(health['p99_s'])} "
          f"of {health['looks']} looks, {health['failed']} failed")
    print(f"the client: busy {_text(client['busy_share'])} of one core, "
          f"woke up {_ms(client['late_p99_s'])} late at p99")
    sizes = ", ".join(f"{name} {memory[name] / 2**20:,.0f} MiB" for name in memory)
    grown = numbers["growth"]
    judged = "too few requests to judge" if grown is None else f"{grown:+.1%} after the warm-up"
    print(f"memory of the server: {sizes}; {judged}")
    for problem, count in numbers["problems"].items():
        print(f"problem, {count} times: {problem}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.0f} ms"
