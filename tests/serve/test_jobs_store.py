"""Jobs, pictures and keys in SQLite and in a real PostgreSQL."""

import base64
import io
import threading
import time
import warnings
from types import SimpleNamespace

import postgres
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fake_engine import FakeEngine
from PIL import Image
from running import serving, until

from lens.errors import QueueFullError, SettingError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import GenerationRequest
from lens.serve.storage.api_keys import ApiKeyStore
from lens.serve.storage.blob_store import BlobStore
from lens.serve.storage.database import MIGRATIONS, Database, StorageError
from lens.serve.storage.jobs import (
    CANCELLED,
    DONE,
    FAILED,
    MAX_ATTEMPTS,
    QUEUED,
    RUNNING,
    IdempotencyError,
    JobStore,
)
from lens.serve.storage.migrations import m0001_first
from lens.serve.storage.name_lease import NameLease

SETTINGS = ImageMetadata(
    prompt="a fox", seed=3, width=48, height=32, steps=4, guidance=1.0, solver="euler",
    model="lens-nano-turbo", model_hash="0" * 64, dtype="float32", device="cpu",
)  # fmt: skip
REQUEST = {"draw": {"prompt": "a fox", "image": None, "mask": None}}


@pytest.fixture(scope="module")
def postgres_url():
    obstacle = postgres.missing()
    if obstacle:
        warnings.warn(f"THE JOB STORE WAS NOT TESTED ON POSTGRESQL: {obstacle}", stacklevel=1)
        pytest.skip(f"NOT TESTED on PostgreSQL: {obstacle}")
    with postgres.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'lens.sqlite'}"
    else:
        url = request.getfixturevalue("postgres_url")
    database = Database(url)
    with database.engine.begin() as connection:
        for table in ("pictures", "jobs", "keys", "servers"):
            connection.execute(database.tables[table].delete())
    jobs = JobStore(database, BlobStore(str(tmp_path / "pictures")))
    yield SimpleNamespace(
        jobs=jobs, api_keys=ApiKeyStore(database), database=database, url=url, folder=tmp_path
    )
    database.close()


def files(store):
    return sorted(path.name for path in (store.folder / "pictures").rglob("*.*"))


def test_a_job_is_found_again_by_its_owner_alone(store):
    job = store.jobs.add("ann", REQUEST, 2)
    assert store.jobs.get(job.id, "ann") == job == store.jobs.get(job.id)
    assert (job.status, job.count, job.request) == (QUEUED, 2, REQUEST)
    assert store.jobs.get(job.id, "bob") is None


def test_lists_come_in_pages_the_newest_first(store):
    added = [store.jobs.add("ann", REQUEST, 1).id for _ in range(5)]
    store.jobs.add("bob", REQUEST, 1)
    first = store.jobs.list_jobs("ann", limit=3)
    rest = store.jobs.list_jobs("ann", limit=3, after=first[-1].id)
    assert [job.id for job in first + rest] == added[::-1]
    store.jobs.finish(added[0], CANCELLED)
    assert [job.id for job in store.jobs.list_jobs("ann", (CANCELLED,))] == [added[0]]


def test_the_same_key_finds_the_same_job_and_another_request_is_refused(store):
    first = store.jobs.add("ann", REQUEST, 1, "key-1", {"prompt": "a fox"})
    assert store.jobs.add("ann", REQUEST, 1, "key-1", {"prompt": "a fox"}) == first
    assert store.jobs.add("bob", REQUEST, 1, "key-1", {"prompt": "a fox"}).id != first.id
    with pytest.raises(IdempotencyError, match="another request"):
        store.jobs.add("ann", REQUEST, 1, "key-1", {"prompt": "two foxes"})


def test_one_key_at_the_same_moment_makes_one_job(store):
    found = []

    def add():
        found.append(store.jobs.add("ann", REQUEST, 1, "key-2", {}).id)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1


def test_owners_take_turns_and_their_own_jobs_come_in_order(store):
    ann = [store.jobs.add("ann", REQUEST, 1).id for _ in range(3)]
    bob = store.jobs.add("bob", REQUEST, 1).id
    taken, served = [], []
    while (job := store.jobs.claim("server", served)) is not None:
        taken.append(job.id)
        served = [owner for owner in served if owner != job.owner] + [job.owner]
    assert taken == [ann[0], bob, ann[1], ann[2]]


@pytest.mark.parametrize("recent_owners", [(), ("bob",), ("cid", "ann"), ("ann", "cid", "bob", "dan")])
def test_the_position_of_a_job_is_the_number_of_jobs_claimed_before_it(store, recent_owners):
    owners = ["ann", "ann", "ann", "bob", "ann", "cid", "bob", "dan", "cid", "ann"]
    added = [store.jobs.add(owner, REQUEST, 1) for owner in owners]
    store.jobs.finish(added[1].id, CANCELLED)
    positions = {job.id: store.jobs.num_ahead(job, recent_owners) for job in added if job is not added[1]}
    claimed, served = [], list(recent_owners)
    while (job := store.jobs.claim("server", served)) is not None:
        claimed.append(job.id)
        served = [owner for owner in served if owner != job.owner] + [job.owner]
    assert [positions[job_id] for job_id in claimed] == list(range(9))


def test_each_job_is_taken_once_however_many_ask(store):
    ids = {store.jobs.add("ann", REQUEST, 1).id for _ in range(12)}
    taken, lock = [], threading.Lock()

    def take():
        while (job := store.jobs.claim("server")) is not None:
            with lock:
                taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 12 and set(taken) == ids


def test_a_server_goes_on_with_its_own_jobs_and_those_that_others_left(store):
    mine, others, left = (store.jobs.add("ann", REQUEST, 1).id for _ in range(3))
    for runner in ("one", "two", "three"):
        store.jobs.claim(runner)
    table = store.database.tables["jobs"]
    with store.database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == left).values(lease_until=1.0))
    assert store.jobs.requeue_unfinished("one") == 2
    states = {job_id: store.jobs.get(job_id).status for job_id in (mine, others, left)}
    assert states == {mine: QUEUED, others: RUNNING, left: QUEUED}


def test_what_is_over_stays_over(store):
    job = store.jobs.add("ann", REQUEST, 1)
    store.jobs.claim("server")
    assert store.jobs.finish(job.id, CANCELLED)
    assert not store.jobs.finish(job.id, DONE, {"message": "late"})
    assert (store.jobs.get(job.id).status, store.jobs.get(job.id).error) == (CANCELLED, None)


def test_a_job_is_deleted_with_its_pictures_but_not_with_those_of_others(store):
    one, two = (store.jobs.add("ann", REQUEST, 2) for _ in range(2))
    store.jobs.add_image(one, 0, b"same", "png", SETTINGS)
    alone = store.jobs.add_image(one, 1, b"alone", "png", SETTINGS)
    store.jobs.add_image(two, 0, b"same", "png", SETTINGS)
    assert len(files(store)) == 2 and store.jobs.images.read(alone) == b"alone"
    store.jobs.delete(one.id)
    assert (
        len(files(store)) == 1 and store.jobs.get(one.id) is None and store.jobs.images.get(alone.id) is None
    )
    store.jobs.delete(two.id)
    assert files(store) == []


def test_a_picture_of_a_deleted_job_leaves_no_file(store):
    job = store.jobs.add("ann", REQUEST, 1)
    store.jobs.delete(job.id)
    with pytest.raises(sa.exc.IntegrityError):
        store.jobs.add_image(job, 0, b"late", "png", SETTINGS)
    assert files(store) == []


def test_old_jobs_go_and_others_stay(store):
    old, new, queued = (store.jobs.add("ann", REQUEST, 1).id for _ in range(3))
    store.jobs.finish(old, DONE)
    store.jobs.finish(new, DONE)
    table = store.database.tables["jobs"]
    with store.database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.id.in_([old, queued])).values(finished_at=1.0))
    assert store.jobs.delete_older_than(86400) == 1
    assert {job.id for job in store.jobs.list_jobs()} == {new, queued}


def test_a_caller_has_a_limited_number_of_unfinished_jobs(store):
    for _ in range(2):
        store.jobs.add("ann", REQUEST, 1, max_unfinished=2)
    with pytest.raises(QueueFullError):
        store.jobs.add("ann", REQUEST, 1, max_unfinished=2)
    store.jobs.add("bob", REQUEST, 1, max_unfinished=2)


def test_a_caller_who_is_at_the_limit_is_told_when_a_job_ends_by_the_pace_of_the_last_ones(store):
    open_ids = [store.jobs.add("ann", REQUEST, 1).id for _ in range(3)]
    done_ids = [store.jobs.add("ann", REQUEST, 1).id for _ in range(2)]
    old = store.jobs.add("ann", REQUEST, 1).id
    for ended in (*done_ids, old):
        store.jobs.finish(ended, DONE)
    table, now = store.database.tables["jobs"], time.time()
    times = {one: {"created_at": now - 90} for one in open_ids}
    times |= {done_ids[0]: {"finished_at": now - 50}, done_ids[1]: {"finished_at": now - 10}}
    times |= {old: {"finished_at": now - 5000}}
    with store.database.engine.begin() as connection:
        for job_id, values in times.items():
            connection.execute(table.update().where(table.c.id == job_id).values(**values))
    told = []
    for _ in range(4):
        with pytest.raises(QueueFullError) as caught:
            store.jobs.add("ann", REQUEST, 1, max_unfinished=3)
        told.append(caught.value.retry_after_s)
    # Two ended in 80 s, so the next one 40 s after the last; each who is refused has a place of its own.
    assert told == pytest.approx([30, 70, 110, 150], abs=5)
    with pytest.raises(QueueFullError) as caught:
        store.jobs.add("cid", REQUEST, 1, max_unfinished=0)
    assert caught.value.retry_after_s == 1.0, "a caller without jobs"


def test_keys_are_kept_as_hashes_and_can_be_taken_away(store):
    key = store.api_keys.add("ann", 30)
    found = store.api_keys.find(key)
    assert found is not None and (found.name, found.requests_per_minute) == ("ann", 30)
    assert store.api_keys.find(key + "x") is None
    with store.database.engine.connect() as connection:
        assert key not in str(connection.execute(store.database.tables["keys"].select()).all())
    with pytest.raises(SettingError, match="no other key"):
        store.api_keys.add("ann")
    store.api_keys.remove("ann")
    assert store.api_keys.find(key) is None
    with pytest.raises(SettingError):
        store.api_keys.remove("ann")


def test_opening_again_changes_nothing(store):
    job = store.jobs.add("ann", REQUEST, 1)
    again = Database(store.url)
    assert JobStore(again, store.jobs.images.blobs).get(job.id) == job
    with again.engine.connect() as connection:
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
    again.close()
    assert version == max(path.stem[1:5] for path in MIGRATIONS.glob("m*.py"))


def test_a_database_of_the_first_version_is_migrated_with_its_jobs(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            m0001_first.upgrade()
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('0001')"))
        row = {"id": "job_old", "owner": "ann", "status": RUNNING, "count": 1, "body_sha256": ""}
        jobs = sa.Table("jobs", sa.MetaData(), autoload_with=connection)
        connection.execute(jobs.insert().values(**row, request=REQUEST, created_at=1, lease_until=2))
    engine.dispose()
    database = Database(url)
    store = JobStore(database, BlobStore(str(tmp_path / "pictures")))
    assert store.get("job_old").attempts == 0
    assert store.requeue_unfinished("server-new") == 1 and store.claim("server-new").id == "job_old"
    database.close()


def test_a_server_draws_its_jobs_from_either(store):
    with serving(store.folder / "server", database_url=store.url) as server:
        refused = server.http.post("/v1/jobs", json={"prompt": "a fox", "user": "a\0b"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "user")
        bodies = [{"prompt": "a fox", "n": 2, "user": "ann"}, {"prompt": "fail"}]
        jobs = [server.http.post("/v1/jobs", json=body).json()["id"] for body in bodies]
        until(lambda: store.jobs.num_unfinished() == 0)
        assert [store.jobs.get(job).status for job in jobs] == ["done", "failed"]
        assert server.http.get(f"/v1/jobs/{jobs[0]}").json()["pictures"][1]["number"] == 1
        assert server.http.get("/v1/jobs/%00").status_code == 400
        assert len(server.http.get("/v1/jobs?limit=1&after=" + jobs[1]).json()["data"]) == 1
        assert server.http.delete(f"/v1/jobs/{jobs[0]}").status_code == 200
        assert store.jobs.get(jobs[0]) is None


def test_of_two_servers_on_one_database_either_sees_and_cancels_the_others_jobs(store, monkeypatch):
    monkeypatch.setattr("lens.serve.api.job_worker.LEASE_RENEWAL_INTERVAL_S", 0.1)
    shared = {"database_url": store.url, "pictures_url": str(store.folder / "pictures")}
    with (
        serving(store.folder / "one", FakeEngine(step_s=0.5), name="one", **shared) as one,
        serving(store.folder / "two", FakeEngine(step_s=0.5), name="two", **shared) as two,
    ):
        job = one.http.post("/v1/jobs", json={"prompt": "a fox", "model": "lens-nano"}).json()["id"]
        at_it = until(lambda: next((server for server in (one, two) if server.engine.requests), None))
        other = two if at_it is one else one
        assert other.http.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        until(lambda: at_it.engine.cancelled == 1)
        assert other.engine.requests == []


def test_a_picture_drawn_twice_is_the_first_under_its_address(store):
    job = store.jobs.add("ann", REQUEST, 1)
    first, second = (store.jobs.add_image(job, 0, content, "png", SETTINGS) for content in (b"one", b"two"))
    assert second == first and store.jobs.images.of_job(job.id) == [first]
    assert store.jobs.images.read(first) == b"one" and len(files(store)) == 1


def stopped_under(store, job_id, times):
    """Claim a job and let its server stop, several times."""
    for _ in range(times):
        assert store.jobs.claim("server").id == job_id
        store.jobs.requeue_unfinished("server")


def test_a_job_under_which_three_servers_stopped_fails_with_the_reason(store):
    job = store.jobs.add("ann", REQUEST, 1)
    stopped_under(store, job.id, 2)
    assert store.jobs.get(job.id).status == QUEUED
    stopped_under(store, job.id, 1)
    failed = store.jobs.get(job.id)
    assert (failed.status, failed.error["code"]) == (FAILED, "server_stopped")
    assert "stopped 3 times" in failed.error["message"] and failed.finished_at
    assert store.jobs.claim("server") is None


def test_a_job_under_which_a_server_stopped_waits_for_an_idle_one_and_lets_others_go_first(store):
    suspect = store.jobs.add("ann", REQUEST, 1)
    stopped_under(store, suspect.id, 1)
    fresh = store.jobs.add("ann", REQUEST, 1)
    assert store.jobs.num_ahead(store.jobs.get(suspect.id)) == 1
    assert store.jobs.claim("server", is_idle=False).id == fresh.id
    assert store.jobs.claim("server", is_idle=False) is None
    assert store.jobs.claim("server", is_idle=True).id == suspect.id


def test_an_end_in_order_is_no_attempt_and_a_job_that_gets_on_is_tried_on(store):
    job = store.jobs.add("ann", REQUEST, 9)
    for _ in range(MAX_ATTEMPTS + 1):
        store.jobs.claim("server")
        store.jobs.requeue(job.id)
    assert store.jobs.get(job.id).attempts == 0
    for number in range(MAX_ATTEMPTS + 1):
        claimed = store.jobs.claim("server")
        store.jobs.add_image(claimed, number, b"%d" % number, "png", SETTINGS)
        store.jobs.requeue_unfinished("server")
    assert (store.jobs.get(job.id).status, store.jobs.get(job.id).attempts) == (QUEUED, 1)


def test_a_name_is_held_by_one_running_server_and_by_whom_it_belongs_to_after_a_kill(store, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    ours, other = (NameLease(store.database, tmp_path / name, "press") for name in ("one", "two"))
    ours.acquire()
    ours.acquire()  # as its renewal, and as the same server after a kill
    with pytest.raises(SettingError, match=r"name is 'press'.*no other running server"):
        other.acquire()
    with store.database.engine.begin() as connection:
        connection.execute(store.database.tables["servers"].update().values(lease_until=1.0))
    other.acquire()
    ours.release()  # it has been taken over
    with pytest.raises(SettingError):
        ours.acquire()
    other.release()
    ours.acquire()
    unnamed = [NameLease(store.database, tmp_path / name, None).name for name in ("one", "two", "one")]
    assert unnamed[0] == unnamed[2] != unnamed[1]


def test_a_full_disk_makes_room_by_the_deletion_of_a_job(store, monkeypatch):
    one, two = (store.jobs.add("ann", REQUEST, 2) for _ in range(2))
    store.jobs.add_image(one, 0, b"of both", "png", SETTINGS)
    store.jobs.add_image(one, 1, b"of one", "png", SETTINGS)
    store.jobs.add_image(two, 0, b"of both", "png", SETTINGS)

    def fail_if_full(connection, cursor, statement, *_):
        if statement.startswith("DELETE") and len(files(store)) > 1:
            raise sa.exc.OperationalError(statement, {}, Exception("database or disk is full"))

    sa.event.listen(store.database.engine, "before_cursor_execute", fail_if_full)
    store.jobs.delete(one.id)
    assert store.jobs.get(one.id) is None and len(files(store)) == 1
    sa.event.remove(store.database.engine, "before_cursor_execute", fail_if_full)


def test_two_servers_without_names_on_one_database_leave_each_other_their_jobs(store):
    shared = {"database_url": store.url, "pictures_url": str(store.folder / "pictures")}
    with serving(store.folder / "one", FakeEngine(step_s=0.02), **shared) as one:
        bodies = [{"prompt": "a fox", "n": 2, "steps": 10, "seed": seed} for seed in range(3)]
        jobs = [one.http.post("/v1/jobs", json=body).json()["id"] for body in bodies]
        until(lambda: one.engine.requests)
        with serving(store.folder / "two", **shared) as two:
            until(lambda: store.jobs.num_unfinished() == 0)
            assert {store.jobs.get(job).status for job in jobs} == {DONE}
            assert len(one.engine.requests + two.engine.requests) == 6
    with (
        serving(store.folder / "one", name="press", **shared),
        pytest.raises(SettingError, match="no other running server"),
        serving(store.folder / "two", name="press", **shared),
    ):
        pass


def test_a_job_that_starts_from_a_picture_is_drawn_by_another_server_than_the_one_that_took_it_on(store):
    shared = {"database_url": store.url, "pictures_url": str(store.folder / "pictures")}
    file = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(file, format="PNG")
    body = {"prompt": "a fox", "image": base64.b64encode(file.getvalue()).decode()}
    with serving(store.folder / "one", **shared) as one, serving(store.folder / "two", **shared) as two:
        one.app.state.job_worker._has_name = False  # it claims nothing
        jobs = [one.http.post("/v1/jobs", json=body | {"seed": seed}).json()["id"] for seed in (1, 2)]
        until(lambda: store.jobs.num_unfinished() == 0)
        assert [store.jobs.get(job).status for job in jobs] == [DONE, DONE]
        assert two.engine.requests[0].image.parent == store.folder / "two" / "uploads"
        two.app.state.job_worker._has_name = False
        gone = one.http.post("/v1/jobs", json=body).json()["id"]
        source = two.engine.requests[0].image
        source.unlink()
        (store.folder / "pictures" / source.name[:2] / source.name).unlink()
        two.app.state.job_worker._has_name = True
        until(lambda: store.jobs.num_unfinished() == 0)
        assert store.jobs.get(gone).error["param"] == "image"


def test_a_job_under_which_a_server_stopped_is_drawn_alone(store):
    jobs = [store.jobs.add("ann", _spec(seed), 1) for seed in range(4)]
    suspect = jobs[1].id
    table = store.database.tables["jobs"]
    with store.database.engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == suspect).values(attempts=1))
    at_once = []
    with serving(store.folder / "server", FakeEngine(step_s=0.01), database_url=store.url) as server:
        worker = server.app.state.job_worker

        def all_done():
            at_once.append(set(worker._progress))
            return store.jobs.num_unfinished() == 0

        until(all_done)
    assert {suspect} in at_once
    assert [running for running in at_once if suspect in running and len(running) > 1] == []
    assert [store.jobs.get(job.id).status for job in jobs] == [DONE] * 4


def _spec(seed):
    request = GenerationRequest("lens-nano-turbo", "a fox", seed, 64, 64, steps=5, guidance=1.0)
    return GenerationSpec(request, 1).to_json()


def test_a_database_that_cannot_be_used_is_named():
    with pytest.raises(SettingError, match="database_url"):
        Database("no url")
    with pytest.raises(StorageError, match="cannot be opened"):
        Database("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_files_can_lie_in_any_store_of_fsspec(tmp_path):
    for url in (str(tmp_path / "here"), "memory://lens-test"):
        place = BlobStore(url)
        name = place.put(b"content", ".png")
        assert place.put(b"content", ".png") == name and place.get(name) == b"content"
        place.delete(name)
        place.delete(name)
        with pytest.raises(FileNotFoundError):
            place.get(name)
    with pytest.raises(SettingError, match="pictures_url"):
        BlobStore("nowhere://bucket")
