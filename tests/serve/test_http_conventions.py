"""What clients of HTTP and OpenAI's clients expect of any answer, with the studio and without it."""

import re
import socket

import httpx2
import openai
import pytest
from fake_engine import FakeEngine
from running import answering, client_of, serving
from sqlalchemy.exc import OperationalError

from lens.errors import LensError
from lens.serve.api.errors import without_places
from lens.serve.api.generation import NO_HOOKS, GenerationHooks
from lens.serve.server import create_server_app
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.server_state import open_server_state

PROMPT = "a fox"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The address of a server with the studio."""
    settings = ServerSettings.of({"state": tmp_path_factory.mktemp("studio")})
    store = open_server_state(settings)
    with answering(create_server_app(FakeEngine(), settings, store, NO_HOOKS, has_studio=True)) as base:
        yield base
    store.close()


@pytest.fixture(params=["without the studio", "with the studio"])
def base(request):
    if request.param == "with the studio":
        return request.getfixturevalue("studio")
    return request.getfixturevalue("server").base


def image_url(base):
    body = {"prompt": PROMPT, "size": "64x64", "response_format": "url"}
    return httpx2.post(f"{base}/v1/images/generations", json=body).json()["data"][0]["url"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1", 404), ("GET", "/v1/nothing", 404), ("POST", "/v1/images/variations", 404),
     ("POST", "/v1/chat/completions", 404), ("DELETE", "/nothing", 404), ("GET", "/no/thing", 404),
     ("GET", "/v1/images/generations", 405), ("PUT", "/v1/jobs/x", 405), ("PATCH", "/healthz", 405),
     ("POST", "/metrics", 405), ("DELETE", "/v1/models/lens-nano", 405)],
)  # fmt: skip
def test_unknown_addresses_and_methods_are_answered_in_the_form_of_the_api(base, method, path, status):
    answer = httpx2.request(method, base + path)
    assert (answer.status_code in (status, 405 if path == "/nothing" else status)), answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert path in answer.json()["error"]["message"]
    if status == 405:
        allowed = set(re.split(", *", answer.headers["allow"]))
        assert allowed and method not in allowed and allowed <= {"GET", "POST", "DELETE"}


@pytest.mark.parametrize(
    "path",
    ["/v1/models/", "//v1/models", "/v1//models", "/v1/models//", "/healthz/", "//readyz", "/metrics/"],
)
def test_slashes_too_many_are_no_other_address(base, path):
    answer = httpx2.get(base + path)  # redirects are not followed
    assert answer.status_code == 200, answer.text
    body = {"prompt": PROMPT, "size": "64x64"}
    assert httpx2.post(f"{base}/v1//images/generations/", json=body).status_code == 200
    assert httpx2.get(f"{base}/v1/nothing/").status_code == 404


def test_a_base_url_without_the_version_or_with_two_is_told(base):
    for path, says in (("/models", "end the base URL"), ("/images/generations", "end the base URL"),
                       ("/v1/v1/models", "/v1 twice"), ("/v1/nothing", "/openapi.json")):  # fmt: skip
        answer = httpx2.get(base + path)
        assert answer.status_code == 404 and says in answer.json()["error"]["message"], path


def test_head_is_answered_as_get_without_its_body(base):
    for address in (f"{base}/healthz", f"{base}/v1/models", image_url(base), f"{base}/docs"):
        got, head = httpx2.get(address), httpx2.head(address)
        assert (head.status_code, head.content) == (200, b""), address
        assert head.headers["content-length"] == str(len(got.content)) and got.content
    assert httpx2.head(f"{base}/v1/nothing").status_code == 404
    assert httpx2.head(f"{base}/v1/images/generations").status_code == 405


def test_head_of_a_stream_of_events_ends_at_once(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.2)) as running:
        job = running.http.post("/v1/jobs", json={"prompt": PROMPT, "steps": 100}).json()["id"]
        answer = running.http.head(f"/v1/jobs/{job}/events", timeout=5)
        assert (answer.status_code, answer.content) == (200, b"")


def test_an_image_that_a_caller_has_is_not_sent_again(base):
    url = image_url(base)
    etag = httpx2.get(url).headers["etag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = httpx2.get(url, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert httpx2.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_image_whose_file_is_gone_is_not_found(server):
    url = image_url(server.base)
    for file in (server.settings.state / "pictures").rglob("*.png"):
        file.unlink()
    answer = httpx2.get(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_every_answer_has_an_id_and_the_callers_own_is_kept(server, base):
    ids = [httpx2.get(base + path).headers["x-request-id"] for path in ("/healthz", "/v1/models", "/v1/no")]
    assert len(set(ids)) == 3
    kept = httpx2.get(f"{base}/v1/models", headers={"X-Request-Id": "trace-7"})
    assert kept.headers["x-request-id"] == "trace-7"
    odd = httpx2.get(f"{base}/v1/models", headers={"X-Request-Id": "a b<c>"})
    assert re.fullmatch(r"req_[0-9a-f]{32}", odd.headers["x-request-id"])
    assert client_of(base).models.list()._request_id


def test_an_internal_error_names_its_request_in_the_log_and_in_the_answer(server, caplog):
    headers = {"X-Request-Id": "trace-8"}
    answer = server.http.post("/v1/images/generations", json={"prompt": "fail"}, headers=headers)
    assert answer.status_code == 500 and "request trace-8" in answer.json()["error"]["message"]
    assert [record for record in caplog.records if "request trace-8: unexpected" in record.getMessage()]


def test_clients_do_not_repeat_what_would_fail_again(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.02)) as running:
        client = openai.OpenAI(base_url=f"{running.base}/v1", api_key="none", max_retries=2)
        headers = {"Idempotency-Key": "one"}
        running.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=headers)
        again = running.http.post("/v1/jobs", json={"prompt": "else"}, headers=headers)
        assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
        with pytest.raises(openai.APIStatusError) as caught:
            client.post("/jobs", body={"prompt": "else"}, cast_to=object, options={"headers": headers})
        assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_a_keys_rate_limit_is_told_with_every_answer(tmp_path):
    with serving(tmp_path) as running:
        keys = [running.store.api_keys.add("slow", 2), running.store.api_keys.add("free")]
        bearers = [{"Authorization": f"Bearer {key}"} for key in keys]
        told = [running.http.get("/v1/models", headers=bearers[0]) for _ in range(3)]
        assert [one.headers["x-ratelimit-limit-requests"] for one in told] == ["2"] * 3
        assert [one.headers["x-ratelimit-remaining-requests"] for one in told] == ["1", "0", "0"]
        resets = [float(one.headers["x-ratelimit-reset-requests"].rstrip("s")) for one in told]
        assert resets == pytest.approx([30.0, 60.0, 60.0], abs=1.0)
        assert [one.status_code for one in told] == [200, 200, 429]
        free = running.http.get("/v1/models", headers=bearers[1])
        assert not [name for name in free.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("method", "path", "param"),
    [("GET", "/v1/models?limit=3", "limit"), ("GET", "/v1/jobs?status=done&page=2", "page"),
     ("GET", "/v1/jobs?limit=1&limit=2", "limit"),
     ("POST", "/v1/images/generations?api-version=1", "api-version"),
     ("POST", "/v1/images/edits?n=2", "n"), ("POST", "/v1/jobs?dry_run=1", "dry_run"),
     ("GET", "/v1/pictures/x.png?w=10", "w"), ("GET", "/v1/jobs?after=job_gone", "after")],
)  # fmt: skip
def test_a_query_that_means_nothing_here_is_named(server, method, path, param):
    body = {"json": {"prompt": PROMPT}} if method == "POST" and "edits" not in path else {}
    if "edits" in path:
        body = {"files": {"image": ("a.png", b"")}, "data": {"prompt": PROMPT}}
    answer = httpx2.request(method, server.base + path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_an_idempotency_key_is_honoured_or_refused_and_never_ignored(server):
    headers = {"Idempotency-Key": "order-9"}
    edit = {"data": {"prompt": PROMPT}, "files": {"image": ("a.png", b"")}}
    for path, content in (("generations", {"json": {"prompt": PROMPT}}), ("edits", edit)):
        answer = server.http.post(f"/v1/images/{path}", headers=headers, **content)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
        assert "/v1/jobs" in answer.json()["error"]["message"]


def test_one_request_said_in_two_ways_is_one_job_under_its_key(server):
    headers = {"Idempotency-Key": "order-10"}
    ways = [
        {"prompt": PROMPT}, {"prompt": f" {PROMPT} ", "n": 1}, {"prompt": PROMPT, "quality": "standard"},
        {"prompt": PROMPT, "size": "auto", "output_format": "png", "priority": 0, "user": None, "loras": []},
    ]  # fmt: skip
    jobs = {server.http.post("/v1/jobs", json=way, headers=headers).json()["id"] for way in ways}
    assert len(jobs) == 1
    for other in ({"n": 2}, {"output_format": "jpeg"}, {"quality": "high"}, {"seed": 0}):
        answer = server.http.post("/v1/jobs", json={"prompt": PROMPT} | other, headers=headers)
        assert answer.status_code == 409, other


def test_errors_do_not_tell_where_the_server_keeps_things(tmp_path):
    def fail(prompt, caller):
        raise LensError(f"A refusal cannot be recorded in {tmp_path}/deep/refusals.jsonl: it is full.")

    with serving(tmp_path, hooks=GenerationHooks(check_prompt=fail)) as running:
        answer = running.http.post("/v1/images/generations", json={"prompt": PROMPT})
        assert answer.status_code == 500 and str(tmp_path) not in answer.text
        assert "refusals.jsonl: it is full" in answer.text
        broken = {"image": ("a.png", b"no picture")}
        answer = running.http.post("/v1/images/edits", files=broken, data={"prompt": PROMPT})
        assert answer.status_code == 400 and "0x" not in answer.text
    with serving(tmp_path) as running:

        def unreachable(*_):
            why = "connection to server at 10.0.0.5, port 5432 failed"
            raise OperationalError("SELECT", {}, Exception(why))

        running.store.jobs.get = running.store.jobs.images.get = unreachable
        for path in ("/v1/jobs/one", "/v1/pictures/one.png"):
            answer = running.http.get(path)
            assert answer.json()["error"]["code"] == "storage_unavailable" and "10.0.0.5" not in answer.text
    text = "connection to postgresql://ann:pw@10.0.0.5:5432/lens failed, see <X object at 0x7f3a>"
    assert without_places(text) == "connection to (an address) failed, see <X object>"
    assert without_places("2/3 of and/or 16:9") == "2/3 of and/or 16:9"


@pytest.mark.parametrize(
    "name", ["model", "size", "aspect_ratio", "solver", "quality", "user", "loras", "x" * 99]
)
def test_errors_do_not_send_back_the_megabyte_that_they_are_about(server, name):
    long = "9" * 200_000
    body = {"prompt": PROMPT, name: [{"name": long}] if name == "loras" else long}
    answer = server.http.post("/v1/images/generations", json=body)
    assert answer.status_code == 400 and name in answer.text and len(answer.content) < 2000


def test_the_page_of_the_api_loads_nothing_from_other_hosts(server):
    page = server.http.get("/docs").text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(loaded) >= 3 and all(one.startswith("/") and not one.startswith("//") for one in loaded)
    assert "https://" not in page
    assert all(server.http.get(one).status_code == 200 for one in loaded)
    assert server.http.get("/redoc").status_code == 404


def test_a_server_that_cannot_store_is_not_ready(server, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    assert server.http.get("/readyz").status_code == 200
    monkeypatch.setattr("lens.serve.storage.server_state.CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr("os.fsync", full)
    answer = server.http.get("/readyz")
    assert answer.status_code == 503 and "uploads" in answer.json()["reasons"][0]
    monkeypatch.undo()


def test_the_files_of_a_state_are_for_its_account_alone(server):
    state = server.settings.state
    modes = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}
    assert {name: modes[name] for name in ("lens.sqlite", "uploads", "pictures")} == {
        "lens.sqlite": 0o600, "uploads": 0o700, "pictures": 0o700
    }  # fmt: skip
    assert all(mode & 0o077 == 0 for name, mode in modes.items() if name.startswith("lens.sqlite"))


def test_a_raw_request_without_headers_of_its_own_is_answered(server):
    port = int(server.base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"x-request-id: req_" in head and body == b""
