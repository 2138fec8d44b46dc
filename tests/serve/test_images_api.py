"""Pictures through OpenAI's own client, from a running server."""

import base64
import io
import json
import random
import threading
import time

import httpx2
import openai
import pytest
from fake_engine import FakeEngine
from PIL import Image
from running import serving, until

from lens.core.noise import MAX_SEED
from lens.errors import ModerationError
from lens.reasoner.outcome import Reasoned
from lens.sampling.image_metadata import read_image_metadata
from lens.serve.api.generation import GenerationHooks
from lens.serve.api.schemas import CreateImageRequest, CreateJobRequest
from lens.serve.safety.provenance import TRAINED_MODEL

JSON = {"content-type": "application/json"}
PROMPT = "a red apple on a blue background"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("images")) as running:
        yield running


def opened(text):
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def png(colour="green", size=(96, 64), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format="PNG")
    return file.getvalue()


def refused(call):
    """Return the body of the error that a call ends in."""
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    error = json.loads(caught.value.response.text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return caught.value.status_code, error


def test_one_call_of_the_official_client_returns_a_picture(server):
    answer = server.client.images.generate(model="lens-nano-turbo", prompt=PROMPT, size="256x256")
    image = opened(answer.data[0].b64_json)
    assert (image.size, image.format) == ((256, 256), "PNG")
    assert (answer.size, answer.output_format, answer.quality) == ("256x256", "png", "medium")
    assert answer.usage.output_tokens == 256
    assert answer.usage.total_tokens == answer.usage.input_tokens + 256
    assert answer.usage.input_tokens_details.text_tokens > 3


def test_n_pictures_have_seeds_that_follow_one_another(server):
    answer = server.client.images.generate(prompt=PROMPT, n=3, extra_body={"seed": 7})
    assert [one.seed for one in answer.data] == [7, 8, 9]
    assert [opened(one.b64_json).getpixel((0, 0))[0] for one in answer.data] == [7, 8, 9]


@pytest.mark.parametrize("seed", [-1, "random", None])
def test_a_random_seed_is_another_one_each_time(server, seed):
    own = {} if seed is None else {"extra_body": {"seed": seed}}
    seeds = {server.client.images.generate(prompt=PROMPT, **own).data[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_the_largest_seed_is_drawn_and_a_larger_one_refused(server):
    answer = server.client.images.generate(prompt=PROMPT, n=2, extra_body={"seed": MAX_SEED})
    assert [one.seed for one in answer.data] == [MAX_SEED, 0]
    with pytest.raises(openai.BadRequestError, match="seed"):
        server.client.images.generate(prompt=PROMPT, extra_body={"seed": MAX_SEED + 1})


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_the_format_that_is_asked_for_and_carry_their_marks(server, name, kind, tmp_path):
    answer = server.client.images.generate(prompt=PROMPT, output_format=name, extra_body={"seed": 5})
    image = opened(answer.data[0].b64_json)
    assert (image.format, answer.output_format) == (kind, name)
    path = tmp_path / f"picture.{name}"
    path.write_bytes(base64.b64decode(answer.data[0].b64_json))
    assert read_image_metadata(path).seed == 5
    assert TRAINED_MODEL.encode() in path.read_bytes()


def test_compression_makes_smaller_files(server):
    def size(percent):
        answer = server.client.images.generate(
            prompt=PROMPT, output_format="jpeg", output_compression=percent, extra_body={"seed": 1}
        )
        return len(answer.data[0].b64_json)

    assert size(10) < size(100)


def test_our_own_parameters_reach_the_engine(server):
    own = {"seed": 11, "steps": 3, "guidance": 4.5, "negative_prompt": "fog", "solver": "ab2"}
    own |= {"cache": "first-block"}
    own |= {"loras": [{"name": "ink", "weight": 0.5}], "aspect_ratio": "16:9", "base_resolution": 192}
    server.client.images.generate(model="lens-nano", prompt=f" {PROMPT} ", user="ann", extra_body=own)
    asked = server.engine.requests[-1]
    assert (asked.prompt, asked.seed, asked.steps, asked.guidance) == (PROMPT, 11, 3, 4.5)
    assert (asked.negative_prompt, asked.solver, asked.caller) == ("fog", "ab2", "user:ann")
    assert asked.cache == "first-block"
    assert [(lora.name, lora.weight) for lora in asked.loras] == [("ink", 0.5)]
    assert asked.width > asked.height and asked.width % 16 == asked.height % 16 == 0


@pytest.mark.parametrize(
    ("quality", "model", "steps"),
    [("low", "lens-nano-turbo", 4), ("auto", "lens-nano-turbo", 4), ("medium", "lens-nano-turbo", 4),
     ("high", "lens-nano", 20), ("hd", "lens-nano", 20), ("max", "lens-nano", 40)],
)  # fmt: skip
def test_a_quality_stands_for_a_variant_and_steps(server, quality, model, steps):
    server.client.images.generate(prompt=PROMPT, quality=quality)
    asked = server.engine.requests[-1]
    assert (asked.model, asked.steps) == (model, steps)


def test_an_address_leads_to_the_picture(server):
    answer = server.client.images.generate(prompt=PROMPT, response_format="url", output_format="webp")
    found = httpx2.get(answer.data[0].url)
    assert (found.status_code, found.headers["content-type"]) == (200, "image/webp")
    assert Image.open(io.BytesIO(found.content)).format == "WEBP"
    assert httpx2.get(f"{server.base}/v1/pictures/0123.png").status_code == 404


def test_a_stream_shows_previews_and_then_the_picture(server):
    stream = server.client.images.generate(prompt=PROMPT, size="128x96", stream=True, partial_images=2)
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + [
        "image_generation.completed"
    ]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert {opened(event.b64_json).size for event in events} == {(128, 96)}
    assert opened(events[0].b64_json).getpixel((0, 0)) != opened(events[2].b64_json).getpixel((0, 0))
    last = events[-1]
    assert (last.size, last.quality, last.background, last.output_format) == (
        "128x96", "medium", "opaque", "png")  # fmt: skip
    assert last.usage.output_tokens == 48 and abs(last.created_at - time.time()) < 60


def test_an_edit_starts_from_a_picture(server):
    answer = server.client.images.edit(image=("in.png", png()), prompt=PROMPT, extra_body={"strength": 0.4})
    asked = server.engine.requests[-1]
    assert opened(answer.data[0].b64_json).size == (96, 64) == (asked.width, asked.height)
    assert (asked.strength, asked.mask) == (0.4, None)
    assert Image.open(asked.image).getpixel((0, 0)) == (0, 128, 0)


def test_what_a_mask_leaves_transparent_is_drawn_anew(server):
    mask = Image.new("RGBA", (96, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 48, 64))
    file = io.BytesIO()
    mask.save(file, format="PNG")
    server.client.images.edit(image=("in.png", png()), mask=("m.png", file.getvalue()), prompt=PROMPT, n=2)
    asked = server.engine.requests[-1]
    kept = Image.open(asked.mask)
    assert (kept.getpixel((3, 3)), kept.getpixel((90, 3)), asked.strength) == (255, 0, 1.0)


def test_an_edit_streams_under_its_own_names(server):
    stream = server.client.images.edit(
        image=("in.png", png()), prompt=PROMPT, stream=True, partial_images=1
    )
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def test_models_are_listed(server):
    assert [model.id for model in server.client.models.list()] == [
        "lens-nano-turbo", "lens-nano", "lens-nano-base"
    ]  # fmt: skip
    assert server.client.models.retrieve("lens-nano").id == "lens-nano"
    assert refused(lambda: server.client.models.retrieve("dall-e-9"))[0] == 404


BAD = [
    ({"n": 0}, "n"), ({"n": 11}, "n"), ({"size": "100x100"}, "size"), ({"size": "big"}, "size"),
    ({"size": "64x640"}, "size"), ({"quality": "best"}, "quality"),
    ({"output_format": "gif"}, "output_format"),
    ({"output_compression": 50}, "output_compression"), ({"background": "transparent"}, "background"),
    ({"model": "dall-e-3"}, "model"), ({"style": "vivid"}, "style"), ({"prompt": " "}, "prompt"),
    ({"partial_images": 2}, "partial_images"), ({"seed": -2}, "seed"), ({"steps": 0}, "steps"),
    ({"steps": 5000}, "steps"), ({"guidance": -1}, "guidance"), ({"solver": "magic"}, "solver"),
    ({"cache": "magic"}, "cache"),
    ({"loras": [{"name": "oil"}]}, "loras"), ({"enhance": True}, "enhance"),
    ({"aspect_ratio": "7:1"}, "aspect_ratio"), ({"base_resolution": 130}, "base_resolution"),
    ({"strength": 0.5}, "strength"), ({"negative_prompt": "fog\0"}, "negative_prompt"),
    ({"stream": True, "response_format": "url"}, "response_format"), ({"prompt": "x" * 32_001}, "prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "param"), BAD, ids=lambda value: str(value)[:40])
def test_what_cannot_be_used_is_an_error_that_names_it(server, values, param):
    answer = httpx2.post(f"{server.base}/v1/images/generations", json={"prompt": PROMPT} | values)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert error["message"]


def test_other_errors_have_the_same_form(server):
    post, generations = httpx2.post, f"{server.base}/v1/images/generations"
    answers = [
        (post(generations, content=b"{", headers={"content-type": "application/json"}), 400),
        (post(generations, content=b"\xff\xfe", headers={"content-type": "application/json"}), 400),
        (post(generations, json={}), 400),
        (post(generations, json=[]), 400),
        (httpx2.get(generations), 405),
        (httpx2.get(f"{server.base}/v1/nothing"), 404),
        (post(f"{server.base}/v1/images/edits", data={"prompt": PROMPT}), 415),
        (post(f"{server.base}/v1/images/edits", json={"prompt": PROMPT}), 400),
        (post(generations, content=b"prompt=a+fox"), 415),
    ]
    for answer, status in answers:
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


ODD = [
    None, True, 0, -1, 128, 2**63, 10**400, 0.5, 1e308, "", "\0", "\ud800", "x" * 40_000, "0x0", "auto",
    "AAAA", "data:,", "png", "max", "url", [], [1], [{"name": "ink", "weight": 1e99}], {}, {"a": 1},
]  # fmt: skip


def test_no_body_makes_the_server_fail(server):
    names = [*CreateImageRequest.model_fields, *CreateJobRequest.model_fields, "nothing", "\0"]
    draw = random.Random(6)
    for _ in range(300):
        odd = {name: draw.choice(ODD) for name in draw.sample(names, draw.randint(1, 3))}
        body = {"prompt": PROMPT} | odd
        path = draw.choice(("/v1/images/generations", "/v1/jobs"))
        answer = server.http.post(path, content=json.dumps(body).encode(), headers=JSON)
        assert answer.status_code < 500, (body, answer.text)


def test_files_that_are_no_pictures_are_named(server):
    edit = server.client.images.edit
    assert refused(lambda: edit(image=("in.png", b"no picture"), prompt=PROMPT))[1]["param"] == "image"
    assert refused(lambda: edit(image=("in.png", png()[:60]), prompt=PROMPT))[1]["param"] == "image"
    both = {"image": ("in.png", png()), "mask": ("m.png", png(size=(32, 32)))}
    assert refused(lambda: edit(**both, prompt=PROMPT))[1]["param"] == "mask"
    several = [("a.png", png()), ("b.png", png("red"))]
    assert refused(lambda: edit(image=several, prompt=PROMPT))[1]["param"] == "image"


def test_a_failure_in_the_engine_tells_nothing_of_its_inside(server):
    status, error = refused(lambda: server.client.images.generate(prompt="fail"))
    assert (status, error["type"]) == (500, "server_error") and "secret" not in error["message"]
    with pytest.raises(openai.APIError, match="log"):
        list(server.client.images.generate(prompt="fail", stream=True))


def test_an_adapter_that_cannot_be_used_is_named(server):
    own = {"loras": [{"name": "ink"}]}
    status, error = refused(lambda: server.client.images.generate(prompt="poisoned", extra_body=own))
    assert (status, error["param"]) == (400, "loras") and "another model" in error["message"]
    assert refused(lambda: server.client.images.generate(prompt="poisoned"))[0] == 500


def test_a_full_queue_says_when_to_come_again(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.2, max_open=1)) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            server.client.images.generate(prompt=PROMPT, n=2)
        assert caught.value.response.headers["retry-after"] == "8"
        until(lambda: server.engine.cancelled == 1)  # the first of the two is not drawn for nobody


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_caller_who_leaves_cancels_the_picture(tmp_path, is_stream):
    with serving(tmp_path, FakeEngine(step_s=0.25)) as server:
        body = {"prompt": PROMPT, "steps": 200, "stream": is_stream}
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(f"{server.base}/v1/images/generations", json=body, timeout=0.4)
        until(lambda: server.engine.cancelled == 1)


def test_health_answers_at_once_while_pictures_are_drawn(tmp_path):
    with serving(tmp_path, FakeEngine(step_s=0.005)) as server:

        def call():
            server.client.images.generate(prompt=PROMPT, n=5)

        calls = [threading.Thread(target=call) for _ in range(8)]
        for one in calls:
            one.start()
        times = []
        with httpx2.Client(base_url=server.base) as client:
            while any(one.is_alive() for one in calls):
                began_at = time.monotonic()
                assert client.get("/healthz").json() == {"status": "ok"}
                times.append(time.monotonic() - began_at)
                time.sleep(0.01)
        assert sorted(times)[len(times) // 2] < 0.1


def test_a_draining_server_says_so(tmp_path):
    with serving(tmp_path) as server:
        assert httpx2.get(f"{server.base}/readyz").status_code == 200
        server.app.state.service.is_draining = True
        status, error = refused(lambda: server.client.images.generate(prompt=PROMPT))
        assert (status, error["code"]) == (503, "draining")
        assert httpx2.get(f"{server.base}/readyz").status_code == 503
        assert httpx2.get(f"{server.base}/healthz").status_code == 200


def test_metrics_count_pictures_and_requests(server):
    text = httpx2.get(f"{server.base}/metrics").text
    assert 'lens_pictures{state="waiting"} 0.0' in text and "lens_queue_seconds" in text
    assert 'lens_http_requests_total{route="/v1/images/generations",status="200"}' in text
    assert 'lens_stage_seconds_total{stage="denoise"}' in text


def test_the_operators_hooks_stand_between_requests_and_pictures(tmp_path):
    def check(prompt, caller):
        if "weapon" in prompt:
            raise ModerationError("prompt", "no weapons", "rule", "abc123")

    def check_picture(image, caller):
        if image.getpixel((0, 0))[0] == 66:
            raise ModerationError("picture", "not this one", "detector", "abc124")

    def write_out(prompt, *, seed=0, should_stop=None):
        return Reasoned("refined", f"{prompt}, in full", prompt)

    hooks = GenerationHooks(check_prompt=check, check_image=check_picture, find_reasoner=lambda _: write_out)
    with serving(tmp_path, hooks=hooks) as server:
        status, error = refused(lambda: server.client.images.generate(prompt="a weapon"))
        assert (status, error["code"], error["param"]) == (400, "content_policy_violation", "prompt")
        assert server.engine.requests == []
        own = {"seed": 66}
        status, error = refused(lambda: server.client.images.generate(prompt=PROMPT, extra_body=own))
        assert (status, error["code"]) == (400, "content_policy_violation")
        answer = server.client.images.generate(prompt="a fox", extra_body={"enhance": True})
        assert answer.data[0].revised_prompt == "a fox, in full" == server.engine.requests[-1].prompt


def test_a_picture_that_cannot_be_marked_does_not_leave(tmp_path):
    def mark(image, settings, picture_format, quality):
        raise RuntimeError("no certificate")

    with serving(tmp_path, hooks=GenerationHooks(embed_provenance=mark)) as server:
        assert refused(lambda: server.client.images.generate(prompt=PROMPT))[0] == 500


def test_the_api_describes_itself(server):
    document = httpx2.get(f"{server.base}/openapi.json").json()
    paths = {"images/generations", "images/edits", "models", "jobs", "jobs/{job_id}/events"}
    assert {f"/v1/{path}" for path in paths} <= set(document["paths"])
