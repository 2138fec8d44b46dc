"""The login of the studio: without an API key nothing works, with one everything does."""

import json
import re
from contextlib import contextmanager
from types import SimpleNamespace

import httpx2
import pytest
from fake_engine import FakeEngine
from running import answering
from starlette.routing import Mount

from lens.serve.api.generation import NO_HOOKS
from lens.serve.server import create_server_app
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.server_state import open_server_state

JOIN = "/gradio_api/queue/join"
LOGIN_PAGE = {
    "/", "/login", "/logout", "/svelte/{path}", "/static/{path}", "/assets/{path}", "/favicon.ico",
    "/theme.css", "/gradio_api/theme.css", "/robots.txt", "/pwa_icon", "/pwa_icon/{size}", "/manifest.json",
    "/gradio_api/custom_component/{id}/{environment}/{type}/{file_name}", "/gradio_api/app_id",
}  # fmt: skip
SESSION_INFO = {"/gradio_api/user", "/gradio_api/token"}
OF_KNOWN_SESSIONS = {
    "/gradio_api/heartbeat/{session_hash}", "/gradio_api/startup-events", "/gradio_api/reset",
    "/gradio_api/cancel", "/gradio_api/stream/{event_id}", "/gradio_api/stream/{event_id}/close",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
}  # fmt: skip
DISABLED = {
    "/monitoring/{key}", "/gradio_api/dev/reload", "/gradio_api/process_recording", "/gradio_api/runs",
    "/gradio_api/vibe-edit", "/gradio_api/undo-vibe-edit",
    "/gradio_api/vibe-code", "/gradio_api/vibe-starter-queries",
}  # fmt: skip


@contextmanager
def studio(folder, *names):
    """Serve the API and the studio; callers with these names have keys."""
    settings = ServerSettings.of({"state": folder, "public_url": "https://site.example"})
    engine, store = FakeEngine(), open_server_state(settings)
    try:
        keys = [store.api_keys.add(name) for name in names]
        app = create_server_app(engine, settings, store, NO_HOOKS, has_studio=True)
        with answering(app) as base:
            page = [route for route in app.routes if isinstance(route, Mount)][-1].app.app
            yield SimpleNamespace(base=base, page=page, engine=engine, folder=folder, api_keys=keys)
    finally:
        store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with studio(tmp_path_factory.mktemp("login"), "ann") as running:
        yield running


@pytest.fixture
def client(server):
    with httpx2.Client(base_url=server.base) as plain:
        yield plain


def log_in(client, key):
    return client.post("/login", data={"username": "whoever", "password": key})


def click_draw(client, prompt):
    """Return the request that the page sends when Draw is clicked."""
    config = client.get("/config").json()
    click = next(one for one in config["dependencies"] if one["api_name"] == "on_draw")
    controls = {one["id"]: one["props"] for one in config["components"]}
    values = [controls[number].get("value") for number in click["inputs"]]
    values[[controls[number].get("elem_id") for number in click["inputs"]].index("prompt")] = prompt
    return {"data": values, "fn_index": click["id"], "session_hash": "any"}


def test_without_a_login_only_the_login_page_answers(server, client):
    allowed = set()
    for path, methods in server.page.openapi()["paths"].items():
        for method in methods:
            sent = {"json": {}} if method == "post" else {}
            with client.stream(method.upper(), re.sub(r"\{.*?\}", "x", path), **sent) as answer:
                if answer.status_code != 401:
                    allowed.add(path.rstrip("/") or "/")
                    assert path.rstrip("/") not in DISABLED or answer.status_code in (403, 404, 422)
    assert allowed <= LOGIN_PAGE | SESSION_INFO | OF_KNOWN_SESSIONS | DISABLED
    assert {"/config", JOIN, "/gradio_api/upload"} <= set(server.page.openapi()["paths"]) - allowed
    page = client.get("/").text
    assert '"auth_required":true' in page and "on_draw" not in page


@pytest.mark.parametrize("key", ["", "lens-wrong", "ann", "\0"])
def test_a_wrong_key_is_refused_and_gives_no_access(server, client, key):
    answer = log_in(client, key)
    assert answer.status_code in (400, 422) and "set-cookie" not in answer.headers
    assert client.get("/config").status_code == 401


def test_an_invented_session_gives_no_access(server, client):
    assert log_in(client, server.api_keys[0]).status_code == 200
    names = list(client.cookies.keys())
    invented = "; ".join(f"{name}=invented" for name in names)
    assert names and httpx2.get(f"{server.base}/config", headers={"Cookie": invented}).status_code == 401


def test_a_key_gives_access_until_logout_and_images_are_not_public(server, client):
    assert log_in(client, server.api_keys[0]).json() == {"success": True}
    click = click_draw(client, "a fox")
    assert httpx2.post(server.base + JOIN, json=click).status_code == 401
    assert client.post(JOIN, json=click).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "any"}) as stream:
        messages = (json.loads(line.removeprefix("data:")) for line in stream.iter_lines() if line)
        assert next(one for one in messages if one["msg"] == "process_completed")["success"]
    assert [request.prompt for request in server.engine.requests] == ["a fox"]
    (image,) = (server.folder / "gallery").glob("*.png")
    address = f"{server.base}/gradio_api/file={image}"
    assert client.get(address).content == image.read_bytes()
    assert httpx2.get(address).status_code == 401
    client.get("/logout")
    assert client.get(address).status_code == client.post(JOIN, json=click).status_code == 401
    assert len(server.engine.requests) == 1


def test_a_session_is_hidden_from_scripts_and_is_not_valid_for_the_api(server, client):
    cookies = log_in(client, server.api_keys[0]).headers.get_list("set-cookie")
    assert cookies and all("HttpOnly" in cookie for cookie in cookies)
    assert all("Secure" in cookie or "SameSite=lax" in cookie for cookie in cookies)
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize("host", ["own", "site.example"])
def test_pages_of_other_sites_cannot_use_a_login(server, client, host):
    log_in(client, server.api_keys[0])
    session = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    click = click_draw(client, "a fox")
    elsewhere = {"Origin": "https://elsewhere.example"} | ({} if host == "own" else {"Host": host})
    read = httpx2.get(f"{server.base}/config", headers=elsewhere | {"Cookie": session})
    assert not any(name.startswith("access-control") for name in read.headers), "browsers keep it from them"
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert httpx2.options(server.base + JOIN, headers=elsewhere | ask).status_code == 400
    num_requests = len(server.engine.requests)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # sent without asking first
        headers = elsewhere | {"Cookie": session, "Content-Type": kind}
        answer = httpx2.post(server.base + JOIN, content=json.dumps(click), headers=headers)
        assert answer.status_code == 403
    assert len(server.engine.requests) == num_requests


def test_without_keys_the_studio_needs_no_login(tmp_path):
    with studio(tmp_path) as server:
        assert httpx2.get(f"{server.base}/config").status_code == 200
        assert '"auth_required":true' not in httpx2.get(server.base).text
