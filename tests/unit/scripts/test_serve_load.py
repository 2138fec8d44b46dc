"""The load on a server: what counts as lost, percentiles, goals; every answer is looked at."""

import argparse
import asyncio
import base64
import io
import json
from types import SimpleNamespace

import httpx2
import pytest
from PIL import Image


@pytest.fixture
def numbers(load):
    return load("serve_load_numbers")


@pytest.fixture
def bench(load):
    return load("serve_load")


def picture_answer(width=48, height=32):
    held = io.BytesIO()
    Image.new("RGB", (width, height)).save(held, "PNG")
    return json.dumps({"data": [{"b64_json": base64.b64encode(held.getvalue()).decode()}]}).encode()


def outcome_of(bench, *answers):
    """Ask a server that gives these answers, one after the other; return the outcome and what was left."""
    left = list(answers)

    async def ask():
        transport = httpx2.MockTransport(lambda request: left.pop(0))
        async with httpx2.AsyncClient(base_url="http://server", transport=transport) as client:
            return await bench.answered(client, bench.Ask({"prompt": "a fox"}, (48, 32)))

    return asyncio.run(ask()), left


def healthy(numbers, **changes):
    """Return a load that reaches all goals: 8 images at once in 2 s, 3 one by one in 3 s."""
    values = {
        "together": [numbers.Outcome("picture", 1.0)] * 8, "together_s": 2.0, "client_s": 0.5,
        "alone": [numbers.Outcome("picture", 1.0)] * 3, "health_s": [0.01] * 9, "late_s": [0.0],
        "memory_bytes": {"start": 100, "warm": 200, "highest": 230, "end": 219},
    }  # fmt: skip
    return numbers.Load(num_asked=8, num_asked_alone=3, warm_up=4, **(values | changes))


def test_percentiles_are_values_that_were_measured(numbers):
    values = [float(value) for value in range(200, 0, -1)]
    assert [numbers.percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [100, 190, 198, 200]
    assert numbers.percentile([7.0], 0.99) == 7 and numbers.percentile([], 0.5) is None


def test_a_load_that_reaches_all_goals_misses_none(numbers):
    found = numbers.numbers_of(healthy(numbers))
    assert found["together"]["pictures_per_s"] == 4 and found["alone"]["pictures_per_s"] == 1
    assert found["ratio"] == 4 and found["growth"] == pytest.approx(0.095)
    assert found["client"]["busy_share"] == 0.25
    assert numbers.missed(found, numbers.Goals()) == []


def test_lost_is_what_has_neither_an_image_nor_a_429_and_what_never_ended(numbers):
    picture, refused, lost = (numbers.Outcome(how, 1.0, 2) for how in ("picture", "refused", "lost"))
    counts = numbers.counted([picture, picture, refused, lost], num_asked=7)
    assert counts == {"picture": 2, "refused": 1, "lost": 4, "refusals": 8}


def test_latency_and_throughput_are_those_of_images_alone(numbers):
    outcomes = [numbers.Outcome(how, s) for how, s in (("picture", 2.0), ("lost", 90.0), ("refused", 80.0))]
    assert numbers.latencies(outcomes) == {"p50_s": 2.0, "p95_s": 2.0, "p99_s": 2.0}
    assert numbers.rate(outcomes, elapsed_s=4.0) == 0.25 and numbers.rate([], 0.0) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"together_s": 9.0}, "needs 1x the pictures a second"),
        ({"alone": []}, "3 requests one by one ended with neither"),
        ({"health_s": [0.01] * 9 + [0.1]}, "p99 under 100 ms"),
        ({"health_s": []}, "p99 under 100 ms"),
        ({"num_unhealthy": 1}, "/healthz failed 1 times"),
        ({"memory_bytes": {"warm": 200, "end": 221}}, "memory may grow by 10%"),
    ],
)
def test_each_goal_can_be_missed(numbers, changes, words):
    found = numbers.missed(numbers.numbers_of(healthy(numbers, **changes)), numbers.Goals())
    assert words in found[0]


def test_memory_is_not_judged_where_little_followed_the_warm_up(numbers):
    load = healthy(numbers, memory_bytes={"start": 1, "warm": 1, "end": 9})
    load.warm_up = 5
    assert numbers.numbers_of(load)["growth"] is None


def test_a_429_is_asked_again_after_what_it_says(bench, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    # The benchmark's own name alone: other loops of this process sleep as they do.
    monkeypatch.setattr(bench, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    full = httpx2.Response(429, headers={"Retry-After": "3"})
    outcome, left = outcome_of(bench, full, full, httpx2.Response(200, content=picture_answer()))
    assert (outcome.how, outcome.num_refusals, outcome.problem, left) == ("picture", 2, "", [])
    assert slept == [3, 3]


def test_a_429_that_asks_for_too_long_a_wait_is_an_answer(bench):
    outcome, _ = outcome_of(bench, httpx2.Response(429, headers={"Retry-After": "100000"}))
    assert (outcome.how, outcome.num_refusals) == ("refused", 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(500, content=b"broken"), "500: broken"),
        (httpx2.Response(429), "429: "),
        (httpx2.Response(200, content=b"{}"), "no picture: KeyError"),
        (httpx2.Response(200, content=b'{"data": [{"b64_json": "AAAA"}]}'), "no picture: Unidentified"),
        (httpx2.Response(200, content=picture_answer(32, 48)), "a picture of (32, 48) where (48, 32)"),
    ],
)
def test_an_answer_without_the_image_is_lost(bench, answer, words):
    outcome, _ = outcome_of(bench, answer)
    assert outcome.how == "lost" and outcome.problem.startswith(words)


def test_requests_hold_every_kind_equally_often_and_never_the_same_words_and_seed(bench):
    asked = argparse.Namespace(base=128, models=["a", "b"], steps=4, seed=0)
    asks = bench.asks(36, 18, asked)
    kinds = [(ask.body["model"], ask.body["aspect_ratio"]) for ask in asks]
    assert len(set(kinds)) == 18 and all(kinds.count(kind) == 2 for kind in set(kinds))
    assert len({ask.body["seed"] for ask in asks}) == 36 and len({ask.body["prompt"] for ask in asks}) > 30
    assert dict(zip((kind[1] for kind in kinds), (ask.size for ask in asks), strict=True))["2:1"] == (176, 96)
    assert bench.shares(10, 4) == [2, 3, 2, 3]
