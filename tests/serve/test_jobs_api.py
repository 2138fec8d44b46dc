"""Jobs through HTTP: taken on, drawn, deleted; over restarts, full disks and read-only databases."""

import base64
import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa
from fake_engine import FakeEngine
from PIL import Image
from running import serving, until

HERE = Path(__file__).parent
PROMPT = "two foxes"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("jobs")) as running:
        yield running


@pytest.fixture
def slow(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.1)) as running:
        yield running


def add(server, headers=None, **values):
    answer = server.http.post("/v1/jobs", json={"prompt": PROMPT} | values, headers=headers or {})
    assert answer.status_code == 201, answer.text
    return answer.json()


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (64, 96), colour).save(file, format="PNG")
    return file.getvalue()


def ended(server, job, status="done"):
    def look():
        found = server.http.get(f"/v1/jobs/{job['id']}").json()
        return found if found["status"] not in ("queued", "running") else None

    found = until(look)
    assert found["status"] == status, found
    return found


def events_of(server, job):
    """Return (name, data) of all events of a job until its stream ends."""
    found = []
    with server.http.stream("GET", f"/v1/jobs/{job['id']}/events", timeout=20) as stream:
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_a_job_becomes_pictures_that_can_be_fetched(server):
    job = add(server, n=2, seed=40, size="96x64", output_format="webp")
    assert (job["object"], job["request"]["n"], job["request"]["prompt"]) == ("job", 2, PROMPT)
    done = ended(server, job)
    assert [picture["seed"] for picture in done["pictures"]] == [40, 41]
    image = Image.open(io.BytesIO(httpx2.get(done["pictures"][1]["url"]).content))
    assert (image.size, image.format) == ((96, 64), "WEBP")
    listed = server.http.get("/v1/jobs?status=done").json()["data"]
    assert job["id"] in [one["id"] for one in listed]


def test_events_tell_of_steps_previews_and_the_end(slow):
    job = add(slow, partial_images=2, steps=15)
    events = events_of(slow, job)
    names = [name for name, _ in events]
    assert {"job.step", "job.preview"} <= set(names) and names[-1] == "job.done"
    step = next(data for name, data in events if name == "job.step")
    assert step["progress"][0]["steps"] == 15 and step["seconds_left"] <= 1.5
    preview = next(data for name, data in events if name == "job.preview")
    assert Image.open(io.BytesIO(base64.b64decode(preview["b64_json"]))).size == (128, 128)
    assert len(events[-1][1]["job"]["pictures"]) == 1
    assert events_of(slow, job)[-1][0] == "job.done"  # also for who comes late


def test_those_who_wait_are_told_their_place(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.1), jobs_at_once=1) as running:
        first, second, third = (add(running, steps=steps) for steps in (100, 100, 2))
        until(lambda: running.engine.requests)
        address = f"/v1/jobs/{third['id']}/events"
        with running.http.stream("GET", address, timeout=20) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: job.queued"
            assert json.loads(next(lines).removeprefix("data: "))["position"] == 1
            for job in (first, second):
                running.http.delete(f"/v1/jobs/{job['id']}")
            assert "event: job.done" in list(lines)


def test_a_position_counts_the_jobs_that_are_served_before_as_owners_take_turns(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.1), jobs_at_once=1) as running:
        headers = {
            name: {"Authorization": f"Bearer {running.store.api_keys.add(name)}"} for name in ("ann", "bob")
        }
        running_job, second, third = (add(running, headers["ann"], steps=100) for _ in range(3))
        until(lambda: running.engine.requests)
        of_bob = add(running, headers["bob"], steps=2)

        def position(job, owner):
            answer = running.http.get(f"/v1/jobs/{job['id']}", headers=headers[owner]).json()
            return answer["status"], answer["position"]

        assert position(of_bob, "bob") == ("queued", 0)  # ann was served last
        assert [position(job, "ann") for job in (second, third)] == [("queued", 1), ("queued", 2)]
        running.http.delete(f"/v1/jobs/{running_job['id']}", headers=headers["ann"])
        until(lambda: len(running.engine.requests) == 2)
        assert running.engine.requests[1].steps == 2


def test_a_deleted_job_is_gone_with_its_pictures(server):
    done = ended(server, add(server))
    answer = server.http.delete(f"/v1/jobs/{done['id']}").json()
    assert answer == {"id": done["id"], "object": "job", "deleted": True}
    assert server.http.get(f"/v1/jobs/{done['id']}").status_code == 404
    assert httpx2.get(done["pictures"][0]["url"]).status_code == 404


def test_a_running_job_can_be_cancelled_or_deleted(slow):
    one, two = (add(slow, steps=150) for _ in range(2))
    until(lambda: len(slow.engine.requests) == 2)
    assert slow.http.post(f"/v1/jobs/{one['id']}/cancel").json()["status"] == "cancelled"
    slow.http.delete(f"/v1/jobs/{two['id']}")
    until(lambda: slow.engine.cancelled == 2)
    assert ended(slow, one, "cancelled")["pictures"] == []


def test_the_same_request_again_under_its_key_is_the_same_job(server):
    headers = {"Idempotency-Key": "order-66"}
    first, again = add(server, headers, n=2), add(server, headers, n=2)
    assert first["id"] == again["id"] and first["request"]["seed"] == again["request"]["seed"]
    other = server.http.post("/v1/jobs", json={"prompt": "else"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_a_job_that_fails_says_why(server):
    failed = ended(server, add(server, prompt="fail"), "failed")
    assert failed["error"]["code"] == "server_error" and "secret" not in failed["error"]["message"]
    assert failed["id"] in failed["error"]["message"]  # as in the log


def test_a_job_can_start_from_a_picture(server):
    picture = base64.b64encode(png("red")).decode()
    done = ended(server, add(server, image=f"data:image/png;base64,{picture}", strength=0.5))
    assert done["pictures"][0]["size"] == "64x96" and server.engine.requests[-1].strength == 0.5
    sent = server.engine.requests[-1].image
    os.utime(sent, (1.0, 1.0))
    again = ended(server, add(server, image=picture))
    os.utime(sent, (1.0, 1.0))
    server.http.delete(f"/v1/jobs/{done['id']}")
    assert sent.exists()  # another job starts from the same picture
    server.http.delete(f"/v1/jobs/{again['id']}")
    assert not sent.exists()
    wrong = server.http.post("/v1/jobs", json={"prompt": PROMPT, "image": "no base64!"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "image")


@pytest.mark.parametrize(
    ("values", "param"),
    [({"stream": True}, "stream"), ({"n": 99}, "n"), ({"mask": "AAAA"}, "mask"), ({"size": "1x1"}, "size")],
)
def test_what_cannot_be_used_is_named(server, values, param):
    answer = server.http.post("/v1/jobs", json={"prompt": PROMPT} | values)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert server.http.get("/v1/jobs?limit=0").json()["error"]["param"] == "limit"
    assert server.http.get("/v1/jobs/job_none").status_code == 404


def test_jobs_wait_for_room_in_the_engine(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.02, max_open=2)) as running:
        jobs = [add(running, n=2) for _ in range(4)]
        assert all(len(ended(running, job)["pictures"]) == 2 for job in jobs)


def test_jobs_of_a_killed_server_are_done_after_its_restart(tmp_path):
    def start(step_s):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "server_process.py"), str(tmp_path), str(step_s)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(HERE)},
        )  # fmt: skip
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    process, base = start(0.15)
    try:
        ids = []
        for number in range(5):
            body = {"prompt": PROMPT, "n": 2, "seed": 10 * number, "steps": 30}
            ids.append(httpx2.post(f"{base}/v1/jobs", json=body, timeout=30).json()["id"])
        until(lambda: httpx2.get(f"{base}/v1/jobs/{ids[0]}").json()["status"] == "running")
        assert httpx2.get(f"{base}/v1/jobs/{ids[-1]}").json()["status"] == "queued"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process, base = start(0.0)
    try:
        for number, job_id in enumerate(ids):
            job = until(lambda job_id=job_id: _done(base, job_id))
            assert [picture["seed"] for picture in job["pictures"]] == [10 * number, 10 * number + 1]
            assert httpx2.get(job["pictures"][0]["url"]).status_code == 200
    finally:
        process.kill()
        process.wait()


def _done(base, job_id):
    job = httpx2.get(f"{base}/v1/jobs/{job_id}").json()
    return job if job["status"] == "done" else None


def test_a_server_that_ends_leaves_its_jobs_to_the_next(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.1)) as running:
        job = add(running, model="lens-nano")
        until(lambda: running.engine.requests)
    with serving(tmp_path) as running:
        assert len(ended(running, job)["pictures"]) == 1


def test_on_a_full_disk_callers_are_told_and_jobs_wait(server, monkeypatch):
    def full(content, suffix):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(server.store.jobs.images.blobs, "put", full)
    monkeypatch.setattr("os.fsync", lambda _: full(b"", ""))  # how uploads are written
    files = {"image": ("a.png", png("blue"))}
    upload = server.http.post("/v1/images/edits", data={"prompt": PROMPT}, files=files)
    assert (upload.status_code, upload.json()["error"]["code"]) == (507, "storage_full")
    job = add(server)
    body = {"prompt": PROMPT, "response_format": "url"}
    answer = server.http.post("/v1/images/generations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    assert server.http.get(f"/v1/jobs/{job['id']}").json()["status"] in ("queued", "running")
    monkeypatch.undo()
    assert len(ended(server, job)["pictures"]) == 1


def test_on_a_read_only_database_reading_goes_on_and_nothing_is_lost(slow):
    job = add(slow)
    until(lambda: slow.engine.requests)
    engine, is_locked = slow.store.database.engine, True

    def lock(connection, *_):
        connection.execute(f"PRAGMA query_only={int(is_locked)}")

    sa.event.listen(engine, "checkout", lock)
    answer = slow.http.post("/v1/jobs", json={"prompt": PROMPT})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_unavailable")
    assert slow.http.get(f"/v1/jobs/{job['id']}").status_code == 200
    assert slow.http.post("/v1/images/generations", json={"prompt": PROMPT}).status_code == 200
    assert slow.http.get("/healthz").status_code == 200
    until(lambda: slow.engine.finished >= 2)
    is_locked = False
    assert len(ended(slow, job)["pictures"]) == 1


def test_an_edit_that_waits_is_drawn_after_its_state_folder_has_moved(tmp_path):
    with serving(tmp_path / "here", FakeEngine(step_s=0.2), jobs_at_once=1) as running:
        for _ in range(2):
            job = add(running, image=base64.b64encode(png("red")).decode(), strength=0.5, steps=10)
    (tmp_path / "here").rename(tmp_path / "there")
    with serving(tmp_path / "there") as running:
        assert ended(running, job)["pictures"][0]["size"] == "64x96"
        assert running.engine.requests[-1].image.parent == tmp_path / "there" / "uploads"


def test_two_servers_cannot_hold_one_folder(server):
    from lens.errors import SettingError
    from lens.serve.storage.server_state import open_server_state

    with pytest.raises(SettingError, match="no other server"):
        open_server_state(server.settings)
