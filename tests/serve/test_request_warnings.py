"""What is told of a request that is drawn all the same is in the answers of the API."""

import base64
import dataclasses
import json

import pytest
from fake_engine import MODELS, FakeEngine
from PIL import Image
from png_files import HDR, with_colour_codes
from running import serving, until
from test_uploads import encoded

from lens.sampling.request_warnings import (
    MASK_KEEPS_NOTHING,
    MASK_REDRAWS_NOTHING,
    NO_STRENGTH,
    UNCONVERTED_COLOURS,
    cut_warning,
)
from lens.sampling.resolved_model import ResolvedModel
from lens.serve.api.generation import GenerationHooks
from lens.serve.api.token_counter import TokenCounter

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


def test_models_of_other_worlds_know_any_word_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeEngine, "models", lambda _: [dataclasses.replace(MODELS[0], variant="turbo")])
    with serving(tmp_path) as running:
        assert generate(running, "a mermaid", size="256x256")["warnings"] == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"negative_prompt": "fog"}, "The negative prompt has no effect at guidance 1."),
        ({"negative_prompt": "fog", "guidance": 2.0}, None),
        ({"solver": "ab2", "steps": 1}, "The solver ab2 has no effect on one step"),
        ({"solver": "ab2", "steps": 2}, None),
        ({"cache": "taylorseer"}, "cache taylorseer saves next to nothing at 4 steps"),
        ({"cache": "taylorseer", "steps": 12}, None),
        ({"upscale_strength": 0.5}, "The upscale strength has no effect without upscaling."),
        ({"upscale_strength": 0.5, "upscale": 2}, None),
        ({"quality": "max", "model": "lens-nano", "steps": 2}, "The quality max has no effect"),
        ({"quality": "low", "model": "lens-nano"}, "The quality low has no effect"),
        ({"quality": "max", "model": "lens-nano"}, None),
        ({"quality": "high", "model": "lens-nano"}, None),
        ({"quality": "high", "steps": 2}, None),
    ],
)
def test_settings_without_effect_are_told_and_drawn(server, values, told):
    warnings = generate(server, "a fox", **values)["warnings"]
    assert [warning.startswith(told) for warning in warnings] == [True] if told else warnings == []


def test_a_strength_without_a_source_image_is_told(server):
    job = server.http.post("/v1/jobs", json={"prompt": "a fox", "strength": 0.5}).json()
    assert job["warnings"] == [NO_STRENGTH]
    until(lambda: server.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "done")


def edit(server, image, mask=None, **values):
    files = {"image": ("a.png", encoded(image))}
    files |= {} if mask is None else {"mask": ("m.png", encoded(mask))}
    return server.http.post("/v1/images/edits", data={"prompt": "a fox"} | values, files=files).json()


def test_a_source_image_sets_the_shape_and_what_another_cuts_is_told(server):
    image = Image.new("RGB", (144, 112), "red")
    own = edit(server, image)
    assert (own["size"], own["warnings"]) == ("144x112", [])
    square = edit(server, image, size="128x128")
    assert square["warnings"] == [cut_warning((144, 112), (128, 128))]
    assert "22% of its width is cut off" in square["warnings"][0]


def test_colours_of_a_source_image_that_are_not_converted_are_told(server):
    content = with_colour_codes(encoded(Image.new("RGB", (128, 128), "red")), HDR)
    files = {"image": ("a.png", content)}
    answer = server.http.post("/v1/images/edits", data={"prompt": "a fox"}, files=files).json()
    assert answer["warnings"] == [UNCONVERTED_COLOURS]


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("L", (128, 128), 0), [MASK_REDRAWS_NOTHING]),
        (Image.new("L", (128, 128), 255), [MASK_KEEPS_NOTHING]),
        (Image.new("RGBA", (128, 128), (0, 0, 0, 0)), [MASK_KEEPS_NOTHING]),
        (Image.linear_gradient("L").point(lambda level: 255 * (level > 128)).resize((128, 128)), []),
    ],
    ids=["black", "white", "clear", "half"],
)
def test_a_mask_of_one_colour_is_told(server, mask, told):
    assert edit(server, Image.new("RGB", (128, 128), "red"), mask)["warnings"] == told


def test_a_prompt_that_is_cut_is_told_and_what_was_read_is_counted(tmp_path):
    path = ResolvedModel.of("lens-nano-turbo").component_path("tokenizer")
    counter = TokenCounter({model.name: path for model in MODELS})
    long, room = "a fox " * 1000, counter("lens-nano", "a fox").room
    with serving(tmp_path, hooks=GenerationHooks(count_tokens=counter)) as running:
        answer = generate(running, long)
        (warning,) = answer["warnings"]
        assert f"of which {room} fit" in warning and warning.startswith("The prompt has ")
        assert answer["usage"]["input_tokens_details"]["text_tokens"] == room
        short = generate(running, "a fox", negative_prompt="fog")
        assert short["usage"]["input_tokens"] == counter("lens-nano", "a fox").num_tokens
        both = generate(running, "a fox", model="lens-nano", negative_prompt=long)
        assert both["usage"]["input_tokens"] == room + short["usage"]["input_tokens"]
        assert both["warnings"][0].startswith("The negative prompt has ")


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
