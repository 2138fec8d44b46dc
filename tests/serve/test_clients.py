"""What clients of other servers send: one meaning is taken, else the field that is meant is named."""

import base64
import io

import httpx2
import openai
import pytest
from PIL import Image
from running import serving

from lens.errors import SettingError
from lens.serve.settings.server import ServerSettings

GENERATIONS, EDITS, JOBS = "/v1/images/generations", "/v1/images/edits", "/v1/jobs"
BODY = {"prompt": "a fox", "size": "64x64", "model": "lens-nano"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    aliases = {"gpt-image-1": "lens-nano", "dall-e-3": "lens-nano-turbo"}
    with serving(tmp_path_factory.mktemp("clients"), model_aliases=aliases) as running:
        yield running


def png(colour="green", size=(96, 64)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, format="PNG")
    return file.getvalue()


def data_url(content):
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


PICTURE = data_url(png())


def post(server, path, fields):
    """Send fields as each route takes them; return the answer."""
    if path == EDITS:
        return server.http.post(path, data=fields, files={"image": ("a.png", png())})
    return server.http.post(path, json=fields)


def refusal(answer):
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
def test_names_of_diffusers_are_taken(server, path):
    sent = BODY | {"num_inference_steps": 7, "guidance_scale": 3.5}
    assert post(server, path, sent).status_code == 200
    drawn = server.engine.requests[-1]
    assert (drawn.steps, drawn.guidance) == (7, 3.5)
    status, param, message = refusal(post(server, path, sent | {"steps": 7}))
    assert (status, param) == (400, "steps") and "num_inference_steps" in message
    status, param, _ = refusal(post(server, path, BODY | {"num_inference_steps": 0}))
    assert (status, param) == (400, "steps")


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
def test_a_seed_of_minus_one_is_a_random_one(server, path):
    seeds = [post(server, path, BODY | {"seed": -1}).json()["data"][0]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1] and min(seeds) >= 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [("cfg_scale", "guidance"), ("width", "size"), ("num_images", "n"), ("sampler_name", "solver"),
     ("scheduler", "solver"), ("style", "styles"), ("format", "output_format"), ("lora", "loras")],
)  # fmt: skip
@pytest.mark.parametrize("path", [GENERATIONS, EDITS, JOBS])
def test_other_names_are_refused_by_the_field_that_is_meant(server, path, name, meant):
    num_drawn = len(server.engine.requests)
    status, param, message = refusal(post(server, path, BODY | {name: "1"}))
    assert (status, param) == (400, name) and f"'{meant}'" in message
    assert len(server.engine.requests) == num_drawn


def test_a_model_has_the_further_names_that_the_operator_gives(server):
    answer = server.client.images.generate(model="gpt-image-1", prompt="a fox", size="64x64")
    assert server.engine.requests[-1].model == "lens-nano" and answer.model == "lens-nano"
    assert server.client.models.retrieve("dall-e-3").id == "lens-nano-turbo"
    server.client.images.edit(model="dall-e-3", image=("a.png", png()), prompt="a fox")
    assert server.engine.requests[-1].model == "lens-nano-turbo"
    with pytest.raises(openai.BadRequestError, match="lens-nano-turbo"):
        server.client.images.generate(model="gpt-image-2", prompt="a fox")


@pytest.mark.parametrize(
    ("aliases", "words"),
    [({"a": "lens-9"}, "lens-nano-turbo"), ({"lens-nano": "lens-nano-turbo"}, "no model has")],
)
def test_an_alias_names_a_model_that_is_there_and_hides_none(aliases, words):
    with pytest.raises(SettingError, match=words):
        ServerSettings.of({"model_aliases": aliases})


@pytest.mark.parametrize("names", [("image", "mask"), ("image[]", "mask[]")])
def test_files_may_have_the_names_of_lists(server, names):
    files = {names[0]: ("a.png", png()), names[1]: ("m.png", png("white"))}
    assert server.http.post(EDITS, data=BODY, files=files).status_code == 200
    drawn = server.engine.requests[-1]
    assert Image.open(drawn.mask).getextrema() == (255, 255)


@pytest.mark.parametrize(
    "images",
    [{"images": [{"image_url": PICTURE}]}, {"images": [PICTURE]}, {"image": PICTURE},
     {"image": PICTURE.partition(",")[2]}, {"image": {"image_url": PICTURE}}],
    ids=["reference", "list", "data URL", "base64", "one reference"],
)  # fmt: skip
def test_an_edit_may_be_json(server, images):
    sent = {"prompt": "a fox", "mask": {"image_url": data_url(png("white"))}, "strength": 0.4, "seed": 3}
    answer = server.http.post(EDITS, json=sent | images)
    assert answer.status_code == 200, answer.text
    drawn = server.engine.requests[-1]
    assert (drawn.width, drawn.height, drawn.strength, drawn.seed) == (96, 64, 0.4, 3)
    assert Image.open(drawn.image).getpixel((0, 0)) == (0, 128, 0) and drawn.mask is not None


@pytest.mark.parametrize(
    ("images", "param"),
    [({}, "images"), ({"images": []}, "images"), ({"images": [PICTURE] * 2}, "images"),
     ({"images": [{"image_url": "https://site.example/a.png"}]}, "images"),
     ({"images": [{"file_id": "f"}]}, "images"),
     ({"image": "http://169.254.169.254/"}, "image"), ({"image": 5}, "image"), ({"image": "?"}, "image"),
     ({"image": data_url(b"no image")}, "image"), ({"image": PICTURE, "mask": {"file_id": "f"}}, "mask"),
     ({"image": PICTURE, "images": [PICTURE]}, "images"),
     ({"image": PICTURE, "nothing": 1}, "nothing"), ({"image": PICTURE, "n": 0}, "n")],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_an_edit_in_json_that_cannot_be_used_names_the_field(server, images, param):
    status, named, _ = refusal(server.http.post(EDITS, json={"prompt": "a fox"} | images))
    assert (status, named) == (400, param)


def test_the_document_tells_of_both_forms_of_an_edit(server):
    document = httpx2.get(f"{server.base}/openapi.json").json()
    forms = document["paths"][EDITS]["post"]["requestBody"]["content"]
    assert set(forms) == {"multipart/form-data", "application/json"}
    assert "images" in forms["application/json"]["schema"]["properties"]
