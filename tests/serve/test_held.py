"""What servers held under attack: locks, jumps of the clock, a database that dies, races, many callers."""

import random
import sqlite3
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx2
import postgres
import pytest
from fake_engine import FakeEngine, color
from running import serving, until
from test_images_api import opened
from test_jobs_api import add, ended

PROMPT = "two foxes"
DAY_S = 86_400


def stored_files(server) -> list[str]:
    return sorted(path.name for path in Path(server.settings.state, "pictures").rglob("*.png"))


def test_a_database_that_another_process_locks_is_told_and_jobs_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("lens.serve.storage.database.SQLITE_BUSY_TIMEOUT_S", 0.2)
    with serving(tmp_path, FakeEngine(step_s=0.05)) as server:
        job = add(server)
        until(lambda: server.engine.requests)
        other = sqlite3.connect(tmp_path / "lens.sqlite", timeout=5)
        other.execute("BEGIN IMMEDIATE")
        answer = server.http.post("/v1/jobs", json={"prompt": PROMPT})
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_unavailable")
        assert server.http.get(f"/v1/jobs/{job['id']}").status_code == 200
        assert server.http.post("/v1/images/generations", json={"prompt": PROMPT}).status_code == 200
        other.rollback()
        other.close()
        assert len(ended(server, job)["pictures"]) == 1
        assert ended(server, add(server))["status"] == "done"


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_clock_that_jumps_loses_and_doubles_nothing(jump_s, tmp_path, monkeypatch):
    offset_s = 0.0
    clock = SimpleNamespace(time=lambda: time.time() + offset_s, monotonic=time.monotonic, sleep=time.sleep)
    for module in ("jobs", "images", "name_lease"):
        monkeypatch.setattr(f"lens.serve.storage.{module}.time", clock)
    with serving(tmp_path, FakeEngine(step_s=0.02)) as server:
        jobs = [add(server, seed=10 * number, n=2) for number in range(3)]
        until(lambda: server.engine.requests)
        offset_s = jump_s
        jobs += [add(server, seed=10 * number, n=2) for number in range(3, 6)]
        for number, job in enumerate(jobs):
            pictures = ended(server, job)["pictures"]
            assert [one["seed"] for one in pictures] == [10 * number, 10 * number + 1]
            assert all(httpx2.get(one["url"]).status_code == 200 for one in pictures)
        assert len(stored_files(server)) == 12
        listed = server.http.get("/v1/jobs").json()["data"]
        assert {one["id"] for one in listed} == {one["id"] for one in jobs}


def test_jobs_outlive_a_database_that_is_killed_three_times(tmp_path):
    if obstacle := postgres.missing():
        warnings.warn(f"A KILLED POSTGRESQL WAS NOT TESTED: {obstacle}", stacklevel=1)
        pytest.skip(f"NOT TESTED on PostgreSQL: {obstacle}")
    engine = FakeEngine(step_s=0.02)
    with (
        postgres.cluster() as cluster,
        serving(tmp_path, engine, database_url=cluster.url) as server,
    ):
        jobs = [add(server, seed=10 * number, n=2) for number in range(8)]
        for _ in range(3):
            until(lambda: engine.requests)
            cluster.kill()
            assert server.http.post("/v1/jobs", json={"prompt": PROMPT}).status_code == 507
            assert server.http.get("/healthz").status_code == 200
            cluster.start()
        for number, job in enumerate(jobs):
            pictures = until(lambda job=job: done_pictures(server, job), 30)
            assert [one["seed"] for one in pictures] == [10 * number, 10 * number + 1]
            assert all(httpx2.get(one["url"]).status_code == 200 for one in pictures)


def done_pictures(server, job) -> list[dict] | None:
    answer = server.http.get(f"/v1/jobs/{job['id']}")
    is_done = answer.status_code == 200 and answer.json()["status"] == "done"
    return answer.json()["pictures"] if is_done else None


def test_jobs_that_are_cancelled_and_deleted_at_any_moment_leave_nothing_half_done(tmp_path):
    chance = random.Random(0)
    with serving(tmp_path, FakeEngine(step_s=0.002)) as server, ThreadPoolExecutor(6) as pool:

        def act(number: int) -> tuple[str, str]:
            job, pause_s = add(server, n=2), chance.random() / 10
            verb = ("delete", "cancel", "keep")[number % 3]
            time.sleep(pause_s)
            address = f"/v1/jobs/{job['id']}"
            for _ in range(2):  # the second comes while, or after, the first acts
                if verb == "delete":
                    assert server.http.delete(address).status_code in (200, 404)
                elif verb == "cancel":
                    assert server.http.post(f"{address}/cancel").status_code in (200, 409)
            return verb, job["id"]

        acted = list(pool.map(act, range(30)))
        kept = [name for verb, name in acted if verb != "delete"]
        found = [ended_somehow(server, name) for name in kept]
        until(lambda: server.engine.state().num_running == 0)
        for (verb, _), job in zip([one for one in acted if one[0] != "delete"], found, strict=True):
            assert job["status"] == "done" if verb == "keep" else job["status"] in ("done", "cancelled")
            assert len(job["pictures"]) == 2 if job["status"] == "done" else len(job["pictures"]) <= 2
        listed = server.http.get("/v1/jobs?limit=100").json()["data"]
        assert {one["id"] for one in listed} == set(kept)
        until(lambda: len(stored_files(server)) == sum(len(job["pictures"]) for job in found))


def ended_somehow(server, job_id: str) -> dict:
    def look():
        job = server.http.get(f"/v1/jobs/{job_id}").json()
        return job if job["status"] not in ("queued", "running") else None

    return until(look, 20)


def test_callers_at_once_each_get_their_own_image(tmp_path):
    with serving(tmp_path, FakeEngine()) as server, ThreadPoolExecutor(16) as pool:

        def draw(seed: int) -> tuple[int, int, int]:
            body = {"prompt": f"fox {seed}", "seed": seed, "size": "64x64"}
            answer = httpx2.post(f"{server.base}/v1/images/generations", json=body, timeout=30)
            pixel = opened(answer.json()["data"][0]["b64_json"]).getpixel((0, 0))
            assert isinstance(pixel, tuple)
            return pixel

        for seed, pixel in enumerate(pool.map(draw, range(64))):
            assert pixel == color(f"fox {seed}", seed)
