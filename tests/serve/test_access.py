"""Who may ask, how much at once, and from where."""

import io
import re
import sys
from pathlib import Path

import httpx2
import openai
import pytest
from PIL import Image
from running import client_of, serving, until

from lens.cli.main import main
from lens.errors import SettingError
from lens.serve.settings.server import RequestLimits, ServerSettings

PROMPT = "a fox"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    limits = {"body_bytes": 20_000, "upload_px": 10_000}
    folder = tmp_path_factory.mktemp("access")
    with serving(folder, limits=limits, cors_origins=["https://site.example"]) as running:
        running.api_keys = {name: running.store.api_keys.add(name) for name in ("ann", "bob")}
        running.api_keys["slow"] = running.store.api_keys.add("slow", requests_per_minute=2)
        yield running


def bearer(server, name):
    return {"Authorization": f"Bearer {server.api_keys[name]}"}


def test_without_a_key_that_is_known_nobody_gets_in(server):
    for key in ("none", "lens-wrong"):
        with pytest.raises(openai.AuthenticationError) as caught:
            client_of(server.base, key).images.generate(prompt=PROMPT)
        assert caught.value.body["code"] == "invalid_api_key"
    for path in ("/v1/models", "/v1/jobs", "/metrics", "/openapi.json"):
        answer = httpx2.get(server.base + path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert httpx2.get(f"{server.base}/healthz").status_code == 200


def test_with_a_key_everything_is_as_without_keys(server):
    answer = client_of(server.base, server.api_keys["ann"]).images.generate(
        prompt=PROMPT, response_format="url"
    )
    assert httpx2.get(answer.data[0].url).status_code == 200  # its address is its key
    assert server.engine.requests[-1].caller.startswith("key_")


def test_a_caller_sees_its_own_jobs_alone(server):
    job = httpx2.post(f"{server.base}/v1/jobs", json={"prompt": PROMPT}, headers=bearer(server, "ann")).json()
    address = f"{server.base}/v1/jobs/{job['id']}"
    assert httpx2.get(address, headers=bearer(server, "ann")).status_code == 200
    for method in ("GET", "DELETE"):
        assert httpx2.request(method, address, headers=bearer(server, "bob")).status_code == 404
    assert httpx2.get(f"{server.base}/v1/jobs", headers=bearer(server, "bob")).json()["data"] == []


def test_a_key_has_its_limit_and_says_when_to_ask_again(server):
    answers = [httpx2.get(f"{server.base}/v1/models", headers=bearer(server, "slow")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert httpx2.get(f"{server.base}/v1/models", headers=bearer(server, "ann")).status_code == 200


def test_requests_that_are_too_large_are_refused(server):
    def pieces():
        yield b'{"prompt": "'
        for _ in range(30):
            yield b"x" * 1000
        yield b'"}'

    headers = bearer(server, "ann") | {"Content-Type": "application/json"}
    generations = f"{server.base}/v1/images/generations"
    for content in (b"x" * 30_000, pieces()):
        answer = httpx2.post(generations, content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(server):
    file = io.BytesIO()
    Image.new("L", (1000, 1000)).save(file, format="PNG")
    with pytest.raises(openai.BadRequestError) as caught:
        client = client_of(server.base, server.api_keys["ann"])
        client.images.edit(image=("in.png", file.getvalue()), prompt=PROMPT)
    assert caught.value.body["param"] == "image"


def test_pages_of_other_origins_may_call_where_the_operator_says_so(server):
    def allowed(origin):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx2.options(f"{server.base}/v1/images/generations", headers=headers)
        return answer.headers.get("access-control-allow-origin")

    assert allowed("https://site.example") == "https://site.example"
    assert allowed("https://other.example") is None


def test_a_key_that_is_taken_away_stops_working(tmp_path, monkeypatch):
    monkeypatch.setattr("lens.serve.api.middleware.KEY_CACHE_TTL_S", 0.0)
    with serving(tmp_path) as server:
        assert httpx2.get(f"{server.base}/v1/models").status_code == 200
        assert not httpx2.get(f"{server.base}/v1/models").headers.get("access-control-allow-origin")
        key = server.store.api_keys.add("ann")
        server.store.api_keys.add("bob")
        until(lambda: httpx2.get(f"{server.base}/v1/models").status_code == 401)
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx2.get(f"{server.base}/v1/models", headers=headers).status_code == 200
        server.store.api_keys.remove("ann")
        assert httpx2.get(f"{server.base}/v1/models", headers=headers).status_code == 401


def test_a_server_without_keys_goes_by_its_own_names_alone(tmp_path):
    with serving(tmp_path, public_url="https://lens.example/") as server:
        for host in ("evil.example", "lens.example", "localhost", "[::1]:8000"):
            status = 421 if host == "evil.example" else 200
            for path in ("/v1/models", "/readyz"):
                assert server.http.get(path, headers={"Host": host}).status_code == status, host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "lens.example"])
def test_a_server_that_others_reach_needs_a_key(host):
    settings = ServerSettings(host=host)
    with pytest.raises(SettingError, match="lens keys add"):
        settings.check_exposure(has_key=False)
    settings.check_exposure(has_key=True)
    with pytest.raises(SettingError):
        ServerSettings(host=host, require_key=False).check_exposure(has_key=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_server_for_this_machine_alone_needs_none(host):
    ServerSettings(host=host).check_exposure(has_key=False)


def test_the_command_makes_keys_and_refuses_to_serve_others_without(tmp_path, capsys):
    state = ["--state", str(tmp_path)]
    assert main(["serve", "--host", "0.0.0.0", *state]) == 2
    assert "needs an API key" in capsys.readouterr().err
    assert main(["keys", "add", "ann", *state]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("lens-") and len(key) > 40
    assert main(["keys", "list", *state]) == 0
    assert capsys.readouterr().out.startswith("ann\t")
    assert main(["keys", "remove", "ann", *state]) == 0
    assert main(["serve", "--set", "limits.nothing=1", *state]) == 2
    assert "known name" in capsys.readouterr().err
    assert {path.name for path in Path(tmp_path).iterdir()} >= {"lens.sqlite"}


@pytest.mark.parametrize("package", ["uvicorn", "sqlalchemy", "alembic"])
def test_a_missing_package_is_an_error_that_says_what_to_install(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", "--state", str(tmp_path)]) == 2
    assert f"needs the package {package}." in (said := capsys.readouterr().err) and '".[serve]"' in said


def test_the_guide_names_every_setting():
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "serve.md").read_text()
    named = set(re.findall(r"`(\w+)`", guide.split("## Settings")[1]))
    assert {*ServerSettings.model_fields, *RequestLimits.model_fields} <= named
