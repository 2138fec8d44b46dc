"""The whole way: the official client, the app of `lens serve`, the engine, lens-nano-turbo."""

import base64
import io

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image
from running import answering, client_of, until

from lens.sampling.image_metadata import read_image_metadata
from lens.serve.safety.verify import verify_image
from lens.serve.server import create_engine, create_hooks, create_server_app
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.server_state import open_server_state

PROMPT = "a red apple, on a blue background"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    values = {"state": tmp_path_factory.mktemp("served"), "models": ["lens-nano-turbo"], "drain_s": 1}
    settings = ServerSettings.of(values)
    store, engine = open_server_state(settings), create_engine(settings)
    engine.wait_until_ready(60)
    with answering(
        create_server_app(engine, settings, store, create_hooks(settings), has_studio=False)
    ) as address:
        yield address
    engine.drain(0)
    store.close()


def image_of(text):
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def test_the_official_client_gets_a_picture_and_its_previews(base, tmp_path):
    client = client_of(base)
    asked = {"model": "lens-nano-turbo", "prompt": PROMPT, "size": "256x256", "extra_body": {"seed": 3}}
    answer = client.images.generate(**asked)
    path = tmp_path / "apple.png"
    path.write_bytes(base64.b64decode(answer.data[0].b64_json))
    found = read_image_metadata(path)
    assert (found.seed, found.width, found.prompt) == (3, 256, PROMPT)
    findings = {finding.check: finding for finding in verify_image(path).findings}
    assert findings["xmp"].state == "holds" and findings["c2pa"].verdict == "test certificate"
    assert answer.usage.output_tokens == 256 and 5 <= answer.usage.input_tokens <= 20

    *previews, last = client.images.generate(**asked, stream=True, partial_images=2)
    assert [event.type for event in previews] == ["image_generation.partial_image"] * 2
    difference = np.asarray(image_of(last.b64_json), int) - np.asarray(image_of(answer.data[0].b64_json), int)
    assert np.abs(difference).max() <= 1
    assert all(image_of(event.b64_json).size == (256, 256) for event in previews)


def test_an_edit_keeps_what_the_mask_keeps(base):
    start = Image.new("RGB", (128, 128), (20, 60, 200))
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 64, 128))
    files = {}
    for name, picture in (("image", start), ("mask", mask)):
        file = io.BytesIO()
        picture.save(file, format="PNG")
        files[name] = (f"{name}.png", file.getvalue())
    answer = client_of(base).images.edit(**files, prompt=PROMPT, extra_body={"seed": 1})
    pixels = np.asarray(image_of(answer.data[0].b64_json), int)
    kept = np.abs(pixels[:, 80:] - np.array([20, 60, 200])).mean()
    assert kept < np.abs(pixels[:, :48] - np.array([20, 60, 200])).mean()


def test_a_job_is_drawn_and_the_policy_of_the_package_holds(base):
    job = httpx2.post(f"{base}/v1/jobs", json={"prompt": PROMPT, "n": 2, "seed": 3, "size": "128x128"}).json()

    def done():
        found = httpx2.get(f"{base}/v1/jobs/{job['id']}").json()
        return found if found["status"] == "done" else None

    assert [picture["seed"] for picture in until(done)["pictures"]] == [3, 4]
    with pytest.raises(openai.BadRequestError) as caught:
        client_of(base).images.generate(prompt="a nude child")
    assert caught.value.body["code"] == "content_policy_violation"
    assert httpx2.get(base).json()["api"] == "/v1"
    assert 'lens_pictures_ended_total{how="finished"}' in httpx2.get(f"{base}/metrics").text
