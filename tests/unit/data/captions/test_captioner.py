"""Captions: every response is requested once, bad ones again, and a dead endpoint loses nothing."""

import io
import json
import threading
import time

import numpy as np
import pytest
from local_server import Answering, started_server
from PIL import Image

from lens.data.captions.captioner import (
    IncompleteCaptionsError,
    caption_costs,
    caption_samples,
)
from lens.data.captions.requests import CaptionInput, CaptionResult, encode_for_model
from lens.data.captions.settings import EndpointCaptionerSettings, SidecarCaptionerSettings
from lens.llm.client import ChatError, ChatResponse

GOOD = "A red fox sits on green grass under a wide blue sky beside two small brown mushrooms at noon."
BRIEF = "A fox on grass."


def jpeg(seed: int = 0, height: int = 90, width: int = 160) -> bytes:
    buffer = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def samples(count: int, sidecar: str = "", words: tuple[str, ...] = ()) -> list[CaptionInput]:
    return [
        CaptionInput(f"{item:064x}", sidecar, words, lambda item=item: jpeg(item)) for item in range(count)
    ]


def settings_with(url: str = "http://127.0.0.1:9/v1", **changes) -> EndpointCaptionerSettings:
    endpoint = {"url": url, "model": "seer", "first_wait_s": 0.0, "max_attempts": 2, "timeout_s": 5.0}
    values = {"endpoint": endpoint, "audit": {"min_words": 10}, "concurrency": 3}
    return EndpointCaptionerSettings.of(values | changes)


class Script:
    """A backend with given answers: the n-th about an image, then the last one."""

    name = "script"

    def __init__(self, *answers: str | ChatResponse | ChatError):
        self.answers, self.asked, self._lock = answers, [], threading.Lock()

    def ask(self, image_bytes, prompt, temperature, seed):
        with self._lock:
            self.asked.append((prompt.version, seed))
        answer = self.answers[min(seed, len(self.answers) - 1)]
        if isinstance(answer, ChatError):
            raise answer
        return answer if isinstance(answer, ChatResponse) else ChatResponse(answer, False, False, 100, 20)


def test_captions_that_came_with_the_images_are_unchanged(tmp_path):
    both = [*samples(1, "Ein Fuchs."), CaptionInput("b" * 64, "", (), jpeg)]
    free = caption_samples(SidecarCaptionerSettings.of({"requires": False}), both, tmp_path)
    assert [one.error for one in free.values()] == ["", ""]
    required = caption_samples(SidecarCaptionerSettings.of({}), both, tmp_path)
    assert required == {both[0].id: CaptionResult("Ein Fuchs."), "b" * 64: CaptionResult(error="missing")}


def test_every_sample_gets_its_captions_and_nothing_is_requested_twice(tmp_path):
    settings, script = settings_with(kinds=("dense",)), Script(GOOD)
    first = caption_samples(settings, samples(7), tmp_path, backend=script)
    assert first == {one.id: CaptionResult(GOOD, "", "", 100, 20) for one in samples(7)}
    assert caption_samples(settings, samples(7), tmp_path, backend=script) == first
    assert len(script.asked) == 7


def test_a_brief_caption_is_a_second_one_with_an_audit_of_its_own(tmp_path):
    class Both(Script):
        def ask(self, picture, wording, temperature, seed):
            return ChatResponse(GOOD if wording.version.startswith("dense") else BRIEF, False, False, 1, 1)

    settings = settings_with(kinds=("dense", "brief"))
    (one,) = caption_samples(settings, samples(1), tmp_path, backend=Both()).values()
    assert (one.dense, one.brief, one.prompt_tokens) == (GOOD, BRIEF, 2)


def test_a_caption_that_fails_is_requested_again_then_the_sample_is_dropped_for_it(tmp_path):
    script = Script("I'm sorry, I can't help with that.", "Too short.", GOOD)
    (one,) = caption_samples(settings_with(), samples(1), tmp_path / "a", backend=script).values()
    assert (one.dense, one.error, [seed for _, seed in script.asked]) == (GOOD, "", [0, 1, 2])
    script = Script("I'm sorry, I can't help with that.", "Too short.")
    (one,) = caption_samples(settings_with(), samples(1), tmp_path / "b", backend=script).values()
    assert (one.dense, one.error, len(script.asked)) == ("", "too_short", 3)


def test_an_audit_that_changed_reads_the_answers_again_without_asking(tmp_path):
    script = Script(GOOD)
    caption_samples(settings_with(), samples(2), tmp_path, backend=script)
    strict = settings_with(audit={"min_words": 100}, max_tries=1)
    failures = {one.error for one in caption_samples(strict, samples(2), tmp_path, backend=script).values()}
    assert failures == {"too_short"}
    assert len(script.asked) == 2


def test_ocr_text_has_to_be_quoted(tmp_path):
    (one,) = caption_samples(
        settings_with(max_tries=1), samples(1, words=("OPEN", "DAILY")), tmp_path, backend=Script(GOOD)
    ).values()
    assert one.error == "text_missed"


def test_an_image_that_the_endpoint_rejects_is_dropped_and_the_others_continue(tmp_path):
    refused = ChatError("the picture is too large", is_final=True, status=413)
    (one,) = caption_samples(settings_with(), samples(1), tmp_path, backend=Script(refused)).values()
    assert one.error == "refusal"


def test_an_endpoint_that_dies_stops_the_build_soon_and_loses_no_answer(tmp_path):
    class Dying(Script):
        def ask(self, *question):
            if len(self.asked) >= 9:
                raise ChatError("nobody answers", is_final=False)
            return super().ask(*question)

    script = Dying(GOOD)
    settings = settings_with(give_up_after=4)
    with pytest.raises(
        IncompleteCaptionsError, match=r"9 samples have captions.*nobody answers.*Run the same command"
    ):
        caption_samples(settings, samples(300), tmp_path, backend=script)
    again = Script(GOOD)
    assert len(caption_samples(settings, samples(300), tmp_path, backend=again)) == 300
    assert len(again.asked) == 291


def test_a_real_endpoint_with_trouble_captions_every_sample(tmp_path):
    seen = {"now": 0, "most": 0, "asked": 0}
    lock = threading.Lock()

    class Handler(Answering):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                seen["now"] += 1
                seen["asked"] += 1
                seen["most"] = max(seen["most"], seen["now"])
                number = seen["asked"]
            time.sleep(0.02)
            with lock:
                seen["now"] -= 1
            assert body["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
            if number % 5 == 0:
                self.send(500 if number % 2 else 429, {}, b"busy")
                return
            choice = {"message": {"content": GOOD}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 50, "completion_tokens": 19}
            self.send(200, {}, json.dumps({"choices": [choice], "usage": usage}).encode())

    server = started_server(Handler)
    endpoint = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "seer", "first_wait_s": 0.0}
    found = caption_samples(settings_with(endpoint=endpoint), samples(20), tmp_path)
    server.shutdown()
    assert {one.dense for one in found.values()} == {GOOD}
    assert 1 < seen["most"] <= 3
    assert seen["asked"] > 20


@pytest.mark.parametrize(("size", "expected"), [((90, 160), (160, 90)), ((300, 2000), (128, 19))])
def test_a_model_gets_a_jpeg_of_at_most_the_requested_side(size, expected):
    side = 128 if size[1] == 2000 else 1024
    image = Image.open(io.BytesIO(encode_for_model(jpeg(height=size[0], width=size[1]), side)))
    assert (image.format, image.size) == ("JPEG", expected)


def test_tokens_of_all_answers_are_counted_those_that_failed_too_and_priced(tmp_path):
    settings = settings_with(price_of_million_tokens=(2.0, 8.0), max_tries=2)
    captioned = caption_samples(settings, samples(3), tmp_path, backend=Script("Too short.", GOOD))
    assert caption_costs(settings, captioned.values()) == {
        "prompt_tokens": 600, "completion_tokens": 120, "cost": pytest.approx(0.00216)
    }  # fmt: skip
    assert caption_costs(SidecarCaptionerSettings.of({}), []) == {"prompt_tokens": 0, "completion_tokens": 0}
