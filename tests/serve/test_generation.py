"""The generation service: the HTTP API and the studio ask through it and get the same images."""

import io

import pytest
from fake_engine import FakeEngine
from PIL import Image
from running import serving, until

from lens.errors import GenerationCancelledError, QueueFullError, SettingError
from lens.serve.api.generation import GenerationHooks, GenerationService
from lens.serve.engine.request import GenerationRequest
from lens.serve.settings.server import ServerSettings
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import FORM_FIELDS, StudioHandlers

REQUEST = GenerationRequest("lens-nano", "a fox", 3, 96, 144, 2, 2.0)
CONTROLS = {
    "prompt": "a fox", "model": "lens-nano", "aspect_ratio": "1:1", "base_resolution": 128, "seed": 5,
    "is_seed_locked": True, "count": 1, "steps": 20, "guidance": 2.0, "negative_prompt": "",
    "solver": "euler", "cache": "", "size": "", "loras": [], "start": None, "strength": 0.6,
    "is_strength_set": False, "styles": [], "upscale": 1, "upscale_strength": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def checked():
    """Texts that were moderated."""
    return []


@pytest.fixture(scope="module")
def server(tmp_path_factory, checked):
    hooks = GenerationHooks(check_prompt=lambda prompt, caller: checked.append(prompt))
    with serving(tmp_path_factory.mktemp("generation"), hooks=hooks) as server:
        yield server


def ask_images(server, body):
    assert server.http.post("/v1/images/generations", json=body).status_code == 200


def ask_job(server, body):
    job = server.http.post("/v1/jobs", json=body).json()
    until(lambda: server.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "done")


def ask_studio(server, body, **controls):
    handlers = StudioHandlers(server.app.state.service, Gallery(server.settings.state / "gallery"))
    values, num_before = CONTROLS | body | controls, len(handlers.gallery.items())
    list(handlers.draw([values[name] for name in FORM_FIELDS], "me"))
    assert len(handlers.gallery.items()) == num_before + 1


@pytest.mark.parametrize("ask", [ask_images, ask_job, ask_studio])
def test_a_negative_prompt_is_not_moderated(server, checked, ask):
    checked.clear()
    ask(server, {"prompt": "a fox", "model": "lens-nano", "negative_prompt": "blood"})
    assert checked == ["a fox"] and server.engine.requests[-1].negative_prompt == "blood"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "lens-nano-turbo", "steps": 7, "guidance": 1.0},
        {"negative_prompt": "fog", "solver": "ab2", "loras": [{"name": "ink", "weight": 0.5}]},
        {"aspect_ratio": "16:9", "base_resolution": 192},
        {"size": "208x144"},
    ],
)
def test_the_studio_and_the_api_make_the_same_request(server, body):
    body = {"prompt": " a fox ", "model": "lens-nano", "seed": 5} | body
    ask_images(server, body)
    loras = [[lora["name"], lora["weight"]] for lora in body.get("loras", [])]
    ask_studio(server, body, loras=loras)
    api, studio = server.engine.requests[-2:]
    assert without_caller(studio) == without_caller(api)


@pytest.mark.parametrize(("has_mask", "strength"), [(False, 0.6), (True, 1.0)])
def test_the_default_strength_is_the_same_in_the_studio_and_the_api(server, has_mask, strength):
    image = Image.new("RGB", (128, 128), "red")
    layer = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
    layer.paste((255, 255, 255, 255), (8, 8, 64, 64))
    files = {"image": png(image)} | ({"mask": png(layer.getchannel("A"))} if has_mask else {})
    body = {"prompt": "a fox", "model": "lens-nano", "seed": "5", "size": "128x128"}
    assert server.http.post("/v1/images/edits", data=body, files=files).status_code == 200
    start = {"background": image.convert("RGBA"), "layers": [layer] * has_mask}
    ask_studio(server, {}, start=start)
    api, studio = server.engine.requests[-2:]
    assert api.strength == studio.strength == strength
    for path, other in ((api.image, studio.image), (api.mask, studio.mask)):
        assert (path is None) == (other is None)
        assert path is None or Image.open(path).tobytes() == Image.open(other).tobytes()


def test_a_request_is_submitted_as_soon_as_the_queue_has_room():
    engine = FakeEngine(max_open=0)
    waits = []

    def wait_for_room(error):
        waits.append(error.retry_after_s)
        engine.max_open = len(waits) - 1

    service = GenerationService(engine, ServerSettings.of({}))
    handle = service.submit_when_room(lambda: REQUEST, wait_for_room)
    assert handle.result(5).metadata.seed == 3 and waits == [7.2, 7.2]


def test_waiting_for_room_ends_when_either_function_raises():
    service = GenerationService(FakeEngine(max_open=0), ServerSettings.of({}))

    def give_up(*_):
        raise GenerationCancelledError("enough")

    def refuse(error):
        raise error

    with pytest.raises(GenerationCancelledError):
        service.submit_when_room(give_up, refuse)
    with pytest.raises(QueueFullError):
        service.submit_when_room(lambda: REQUEST, refuse)


def test_without_a_reasoner_enhancing_a_prompt_is_an_error():
    with pytest.raises(SettingError, match="no language model"):
        GenerationService(FakeEngine(), ServerSettings.of({})).enhance("a fox", "lens-nano", "me")


def without_caller(request):
    return {name: value for name, value in vars(request).items() if name not in ("caller", "previews")}


def png(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
