"""The studio of a server with keys: nothing works before a key was shown at its page, everything after."""

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
SAY_WHO_IS_ASKING = {"/gradio_api/user", "/gradio_api/token"}
OF_A_SESSION_THAT_IS_KNOWN = {
    "/gradio_api/heartbeat/{session_hash}", "/gradio_api/startup-events", "/gradio_api/reset",
    "/gradio_api/cancel", "/gradio_api/stream/{event_id}", "/gradio_api/stream/{event_id}/close",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
}  # fmt: skip
SWITCHED_OFF = {
    "/monitoring/{key}", "/gradio_api/runs", "/gradio_api/vibe-edit", "/gradio_api/undo-vibe-edit",
    "/gradio_api/vibe-code", "/gradio_api/vibe-starter-queries",
}  # fmt: skip


@contextmanager
def studio(folder, *names):
    """Serve the API and the studio to callers with keys of these names."""
    settings = ServerSettings.of({"state": folder, "public_url": "https://site.example"})
    engine, store = FakeEngine(), open_server_state(settings)
    try:
        keys = [store.api_keys.add(name) for name in names]
        app = create_server_app(engine, settings, store, NO_HOOKS, has_studio=True)
        with answering(app) as base:
            page = next(route.app for route in app.routes if isinstance(route, Mount))
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


def drawing(client, prompt):
    """Return the request that the page makes when its Draw is clicked."""
    facts = client.get("/config").json()
    click = next(one for one in facts["dependencies"] if one["api_name"] == "on_draw")
    controls = {one["id"]: one["props"] for one in facts["components"]}
    values = [controls[number].get("value") for number in click["inputs"]]
    values[[controls[number].get("elem_id") for number in click["inputs"]].index("prompt")] = prompt
    return {"data": values, "fn_index": click["id"], "session_hash": "any"}


def test_without_a_login_only_its_page_answers(server, client):
    let_in = set()
    for path, methods in server.page.openapi()["paths"].items():
        for method in methods:
            sent = {"json": {}} if method == "post" else {}
            with client.stream(method.upper(), re.sub(r"\{.*?\}", "x", path), **sent) as answer:
                if answer.status_code != 401:
                    let_in.add(path.rstrip("/") or "/")
                    assert path.rstrip("/") not in SWITCHED_OFF or answer.status_code in (403, 404, 422)
    assert let_in <= LOGIN_PAGE | SAY_WHO_IS_ASKING | OF_A_SESSION_THAT_IS_KNOWN | SWITCHED_OFF
    assert {"/config", JOIN, "/gradio_api/upload"} <= set(server.page.openapi()["paths"]) - let_in
    page = client.get("/").text
    assert '"auth_required":true' in page and "on_draw" not in page


@pytest.mark.parametrize("key", ["", "lens-wrong", "ann", "\0"])
def test_a_wrong_key_is_turned_down_and_gets_nothing(server, client, key):
    answer = log_in(client, key)
    assert answer.status_code in (400, 422) and "set-cookie" not in answer.headers
    assert client.get("/config").status_code == 401


def test_a_made_up_session_is_none(server, client):
    assert log_in(client, server.api_keys[0]).status_code == 200
    names = list(client.cookies.keys())
    made_up = "; ".join(f"{name}=invented" for name in names)
    assert names and httpx2.get(f"{server.base}/config", headers={"Cookie": made_up}).status_code == 401


def test_with_a_key_the_studio_draws_until_one_logs_out_and_shows_its_pictures_to_nobody_else(server, client):
    assert log_in(client, server.api_keys[0]).json() == {"success": True}
    click = drawing(client, "a fox")
    assert httpx2.post(server.base + JOIN, json=click).status_code == 401
    assert client.post(JOIN, json=click).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "any"}) as stream:
        told = (json.loads(line.removeprefix("data:")) for line in stream.iter_lines() if line)
        assert next(one for one in told if one["msg"] == "process_completed")["success"]
    assert [request.prompt for request in server.engine.requests] == ["a fox"]
    (picture,) = (server.folder / "gallery").glob("*.png")
    address = f"{server.base}/gradio_api/file={picture}"
    assert client.get(address).content == picture.read_bytes()
    assert httpx2.get(address).status_code == 401
    client.get("/logout")
    assert client.get(address).status_code == client.post(JOIN, json=click).status_code == 401
    assert len(server.engine.requests) == 1


def test_a_session_is_out_of_reach_of_scripts_and_does_not_open_the_api(server, client):
    cookies = log_in(client, server.api_keys[0]).headers.get_list("set-cookie")
    assert cookies and all("HttpOnly" in cookie for cookie in cookies)
    assert all("Secure" in cookie or "SameSite=lax" in cookie for cookie in cookies)
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize("host", ["own", "site.example"])
def test_pages_of_other_sites_cannot_use_a_persons_login(server, client, host):
    log_in(client, server.api_keys[0])
    session = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    click = drawing(client, "a fox")
    elsewhere = {"Origin": "https://elsewhere.example"} | ({} if host == "own" else {"Host": host})
    read = httpx2.get(f"{server.base}/config", headers=elsewhere | {"Cookie": session})
    assert not any(name.startswith("access-control") for name in read.headers), "browsers keep it from them"
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert httpx2.options(server.base + JOIN, headers=elsewhere | ask).status_code == 400
    num_drawn = len(server.engine.requests)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # sent without asking first
        headers = elsewhere | {"Cookie": session, "Content-Type": kind}
        answer = httpx2.post(server.base + JOIN, content=json.dumps(click), headers=headers)
        assert answer.status_code == 422
    assert len(server.engine.requests) == num_drawn


def test_without_keys_the_studio_asks_for_none(tmp_path):
    with studio(tmp_path) as server:
        assert httpx2.get(f"{server.base}/config").status_code == 200
        assert '"auth_required":true' not in httpx2.get(server.base).text
