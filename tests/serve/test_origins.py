"""Requests that pages of other sites make browsers send: what changes something is refused on every route."""

import httpx2
import pytest
from running import serving

from lens.serve.settings.server import ServerSettings

CORS, PUBLIC = "https://friend.example", "https://lens.example"
EVIL = "https://evil.example"
FOREIGN = [
    {"Origin": EVIL}, {"Origin": "null"}, {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}, {"Origin": ""},
    {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
]  # fmt: skip
UNSAFE = [
    ("POST", "/v1/images/generations"), ("POST", "/v1/images/edits"), ("POST", "/v1/jobs"),
    ("DELETE", "/v1/jobs/job_1"), ("POST", "/v1/jobs/job_1/cancel"), ("PUT", "/v1/jobs"),
    ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"), ("POST", "/login"), ("POST", "/"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = {"cors_origins": [CORS], "public_url": f"{PUBLIC}/lens/"}
    with serving(tmp_path_factory.mktemp("origins"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("plain")) as running:
        yield running


def own_origin(server):
    return {"Origin": server.base}


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_change_nothing(server, plain, headers):
    for method, path in UNSAFE:
        for one in (server, plain):
            answer = one.http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin"), path
    form = {"prompt": (None, "a fox"), "image": ("a.png", b"")}  # browsers post a form without asking
    assert server.http.post("/v1/images/edits", files=form, headers=headers).status_code == 403
    assert server.engine.requests == []


def test_several_origins_are_all_checked(server):
    headers = [("Origin", server.base), ("Origin", EVIL)]
    assert server.http.post("/v1/jobs", headers=headers).status_code == 403


def test_own_pages_friends_and_programs_are_served(server):
    port = server.base.rpartition(":")[2]
    for headers in (
        {},
        own_origin(server),
        own_origin(server) | {"Sec-Fetch-Site": "same-origin"},
        {"Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"},
        {"Origin": "https://localhost", "Host": "localhost:443"},
        {"Origin": "http://LOCALHOST", "Host": "localhost"},
        {"Origin": PUBLIC, "Sec-Fetch-Site": "same-origin"},
        {"Origin": CORS, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ):
        answer = server.http.post("/v1/jobs", json={"prompt": ""}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt"), headers


def test_reading_is_left_to_what_browsers_keep_from_pages(server):
    answer = server.http.get("/v1/models", headers={"Origin": EVIL})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers


def test_other_sites_show_no_page_of_the_server_in_a_frame(server):
    assert "frame-ancestors 'self'" in server.http.get("/docs").headers["content-security-policy"]


def test_websockets_are_refused(server):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert server.http.get("/v1/nothing", headers=headers).status_code == 404


NO_HOSTS = "[", "]", "[::1", "a b", "localhost/evil", "user@localhost", "localhost:port", "", "a#", "\xe9"
NUL_ADDRESSES = "/v1/jobs/%00", "/v1/jobs?after=%00", "/v1/pictures/%00.png", "/healthz?%00"


@pytest.mark.parametrize("host", NO_HOSTS)
def test_a_host_that_is_none_is_a_400(server, host):
    answer = httpx2.get(f"{server.base}/healthz", headers=[(b"Host", host.encode("latin-1"))])
    assert answer.status_code == 400
    if answer.headers["content-type"] == "application/json":
        assert answer.json()["error"]["code"] == "invalid_host"


@pytest.mark.parametrize("address", NUL_ADDRESSES)
def test_an_address_with_nul_is_a_400(server, address):
    answer = server.http.get(address)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_address")


def test_no_origin_is_allowed_by_default():
    assert ServerSettings().cors_origins == ()
