"""What a nano model does not know of a request is in the answers of the API."""

import base64
import dataclasses
import json

import pytest
from fake_engine import MODELS, FakeEngine
from running import serving, until

MERMAID = "lens-nano-turbo does not know mermaid; it knows fish, shell, octopus, dolphin, turtle: "
SIZE = "lens-nano-turbo was trained at sizes of about 128 x 128; 256x256 often shows repeated things"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("warnings")) as running:
        yield running


def generate(server, prompt, **values):
    return server.http.post("/v1/images/generations", json={"prompt": prompt} | values).json()


def test_words_and_sizes_that_the_model_does_not_know_are_warnings(server):
    warnings = generate(server, "a mermaid", size="256x256")["warnings"]
    assert warnings == [f"{MERMAID}`lens info lens-nano-turbo` lists them", SIZE]


def test_a_request_without_them_has_an_empty_list(server):
    assert generate(server, "a fox on a blue background")["warnings"] == []


def test_a_stream_and_a_job_have_the_same_warnings(server):
    body = {"prompt": "a mermaid", "stream": True}
    stream = server.http.post("/v1/images/generations", json=body).text
    completed = json.loads(stream.rpartition("data: ")[2])
    assert [warning.startswith(MERMAID) for warning in completed["warnings"]] == [True]
    job = server.http.post("/v1/jobs", json={"prompt": "a mermaid"}).json()
    assert job["warnings"] == completed["warnings"]
    until(lambda: server.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "done")


def test_an_edit_has_warnings(server):
    image = generate(server, "a fox")["data"][0]["b64_json"]
    files = {"image": ("a.png", base64.b64decode(image))}
    answer = server.http.post("/v1/images/edits", data={"prompt": "a mermaid"}, files=files).json()
    assert answer["warnings"][0].startswith(MERMAID)


def test_the_official_client_reads_them(server):
    answer = server.client.images.generate(prompt="a mermaid")
    assert answer.warnings[0].startswith(MERMAID)


def test_models_of_other_worlds_have_no_such_field(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeEngine, "models", lambda _: [dataclasses.replace(MODELS[0], variant="turbo")])
    with serving(tmp_path) as running:
        assert "warnings" not in generate(running, "a mermaid", size="256x256")


def test_sizes_between_trained_bases_have_no_warning(tmp_path, monkeypatch):
    mixed = dataclasses.replace(MODELS[0], trained_bases=(128, 192, 256))
    monkeypatch.setattr(FakeEngine, "models", lambda _: [mixed])
    with serving(tmp_path) as running:
        names = ("160x160", "288x288", "64x96", "320x320")
        between, near, small, large = (generate(running, "a fox", size=name)["warnings"] for name in names)
    assert (between, near) == ([], [])
    assert small[0].endswith("64x96 often shows things that are hard to recognise")
    assert large == [
        "lens-nano-turbo was trained at sizes of about 128 x 128, 192 x 192 and 256 x 256; "
        "320x320 often shows repeated things"
    ]


def test_the_document_of_the_api_describes_the_field(server):
    paths = server.http.get("/openapi.json").json()["paths"]
    for path in ("/v1/images/generations", "/v1/images/edits"):
        schema = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema["properties"]["warnings"]["items"] == {"type": "string"}
