"""An image that is not finite ends in our message: in an answer, a stream and a job, and in no file."""

import json

import openai
import pytest
import torch
from running import serving, until
from tiny_models import tiny_pipeline

from lens.serve.engine.engine import Engine
from lens.serve.engine.model_registry import ModelRegistry
from lens.serve.settings.engine import EngineSettings

MESSAGES = {"latents": "100% of the latents are not finite", "pixels": "100% of the pixels are not finite"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of a model whose denoiser, and of one whose autoencoder, computes no numbers."""
    root = tmp_path_factory.mktemp("models")
    for name in MESSAGES:
        pipeline = tiny_pipeline()
        last = pipeline.transformer.proj_out if name == "latents" else pipeline.vae.decoder.conv_out
        torch.nn.init.constant_(last.bias, torch.nan)
        pipeline.save_pretrained(root / name)
    registry = ModelRegistry.from_names([str(root / name) for name in MESSAGES])
    with (
        Engine(registry, EngineSettings(loads_at_start=False)) as engine,
        serving(root / "state", engine) as running,
    ):
        yield running


@pytest.mark.parametrize("name", MESSAGES)
def test_an_answer_and_a_stream_end_in_our_message(server, name):
    request = {"model": name, "prompt": "a fox", "size": "64x64", "extra_body": {"steps": 2}}
    with pytest.raises(openai.InternalServerError) as caught:
        server.client.images.generate(**request)
    error = json.loads(caught.value.response.text)["error"]
    assert (caught.value.status_code, error["type"]) == (500, "server_error")
    assert error["message"].startswith(MESSAGES[name])
    with pytest.raises(openai.APIError, match=MESSAGES[name]):
        list(server.client.images.generate(**request, stream=True, partial_images=1))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_job_fails_with_our_message_and_stores_no_image(server, name):
    body = {"model": name, "prompt": "a fox", "size": "64x64", "steps": 2}
    address = f"/v1/jobs/{server.http.post('/v1/jobs', json=body).json()['id']}"
    job = until(lambda: (job := server.http.get(address).json())["status"] == "failed" and job)
    assert MESSAGES[name] in json.dumps(job["error"])
    stored = [path.suffix for path in server.settings.state.rglob("*") if path.is_file()]
    assert not {".png", ".jpg", ".jpeg", ".webp"} & set(stored)
