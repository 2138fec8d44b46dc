"""Prompts that a language model writes out before they are drawn: a real server plays the model."""

import base64
import json

import pytest
from local_server import Server
from running import serving, until

from lens.sampling.image_metadata import read_image_metadata
from lens.serve.api.prompt_enhancer import ENHANCER_SYSTEM_PROMPT
from lens.serve.server import create_hooks
from lens.serve.settings.server import ServerSettings
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import StudioHandlers

PROMPT = "a fox"
WRITTEN = "A red fox in fresh snow at dawn, seen from the side."
APIS = ("/v1/images/generations", "/v1/jobs")


def completion(text=WRITTEN, finish="stop", refusal=None):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return 200, json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()


class Writer(Server):
    """Says what a test wants."""

    answer = completion()

    def answer_to(self, body):
        return self.answer


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    writer = Writer()
    values = {"state": tmp_path_factory.mktemp("enhance"), "is_signing": False}
    values["enhance"] = {"url": writer.url, "model": "scribe", "first_wait_s": 0.0}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        yield server, writer
    writer.close()


@pytest.fixture
def server(running):
    return running[0]


@pytest.fixture
def writer(running):
    running[1].answer, running[1].asked = completion(), []
    return running[1]


def refused(server, path, prompt=PROMPT):
    """Return the status and the error that an enhanced request ends in; nothing is drawn."""
    num_drawn = len(server.engine.requests)
    answer = server.http.post(path, json={"prompt": prompt, "enhance": True}, timeout=30)
    assert len(server.engine.requests) == num_drawn
    return answer.status_code, answer.json()["error"]


def test_what_the_model_wrote_is_drawn_told_and_recorded_in_the_picture(server, writer, tmp_path):
    answer = server.client.images.generate(prompt=PROMPT, n=2, extra_body={"enhance": True})
    assert [one.revised_prompt for one in answer.data] == [WRITTEN, WRITTEN]
    assert [request.prompt for request in server.engine.requests[-2:]] == [WRITTEN, WRITTEN]
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(answer.data[0].b64_json))
    assert read_image_metadata(path).prompt == WRITTEN
    messages = [{"role": "system", "content": ENHANCER_SYSTEM_PROMPT}, {"role": "user", "content": PROMPT}]
    (asked,) = writer.asked
    assert (asked.path, asked.body) == ("/v1/chat/completions", {"model": "scribe", "messages": messages})


def test_a_job_is_of_what_the_model_wrote(server, writer):
    job = server.http.post("/v1/jobs", json={"prompt": PROMPT, "enhance": True}).json()
    assert job["request"]["prompt"] == WRITTEN
    until(lambda: server.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "done")
    assert server.engine.requests[-1].prompt == WRITTEN and len(writer.asked) == 1


def test_a_job_that_is_sent_again_is_not_written_out_again(server, writer):
    def sent():
        body, headers = {"prompt": PROMPT, "enhance": True}, {"Idempotency-Key": "one fox"}
        return server.http.post("/v1/jobs", json=body, headers=headers).json()["id"]

    assert sent() == sent() and len(writer.asked) == 1


def test_who_does_not_ask_for_it_has_the_own_prompt_drawn(server, writer):
    for own in ({}, {"enhance": False}):
        answer = server.client.images.generate(prompt=PROMPT, extra_body=own)
        assert server.engine.requests[-1].prompt == PROMPT
        assert "revised_prompt" not in answer.data[0].model_fields_set
    assert writer.asked == []


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (completion("REFUSED"), "declined"),
        (completion("**REFUSED.**\n"), "declined"),
        (completion(None, rejection="I draw no real people."), "I draw no real people."),
        (completion("A fox that", "content_filter"), "declined"),
    ],
    ids=["word", "decorated word", "refusal", "filter"],
)
def test_what_the_model_declines_is_a_400_with_its_reason(server, writer, path, answer, says):
    writer.answer = answer
    status, error = refused(server, path)
    assert (status, error["code"], error["param"]) == (400, "content_policy_violation", "prompt")
    assert says in error["message"] and "A fox that" not in error["message"]
    assert len(writer.asked) == 1


@pytest.mark.parametrize("path", APIS)
def test_what_the_model_wrote_is_held_to_the_policy_as_well(server, writer, path):
    writer.answer = completion("A naked child.")
    status, error = refused(server, path)
    assert (status, error["code"], error["param"]) == (400, "content_policy_violation", "prompt")


@pytest.mark.parametrize("answer", [completion(""), completion(" \n"), completion("A red fox in", "length")])
def test_of_an_answer_that_is_empty_or_cut_the_own_prompt_is_left(server, writer, answer):
    writer.answer = answer
    made = server.client.images.generate(prompt=PROMPT, extra_body={"enhance": True})
    assert made.data[0].revised_prompt == server.engine.requests[-1].prompt == PROMPT


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    "answer", [(500, b""), (401, b"secret"), (200, b"<html>"), (200, b"{}")], ids=["500", "401", "html", "{}"]
)
def test_a_model_that_fails_or_answers_rubbish_is_a_503_that_tells_nothing_of_it(
    server, writer, path, answer
):
    writer.answer = answer
    status, error = refused(server, path)
    assert (status, error["code"], error["param"]) == (503, "enhance_failed", "enhance")
    assert "language model" in error["message"]
    assert not any(inside in error["message"] for inside in (writer.url, "secret", "scribe"))


@pytest.mark.parametrize("text", ["a fox\0 in snow", "a fox \ud800 in snow"], ids=["NUL", "surrogate"])
def test_what_no_file_can_hold_is_left_out_of_what_the_model_wrote(server, writer, text):
    writer.answer = completion(text)
    made = server.client.images.generate(prompt=PROMPT, extra_body={"enhance": True})
    assert made.data[0].revised_prompt.replace("?", "").split() == ["a", "fox", "in", "snow"]


def test_a_model_that_is_not_there_is_a_503_and_pictures_without_it_are_drawn(tmp_path):
    values = {"state": tmp_path, "is_signing": False}
    values["enhance"] = {"url": "http://127.0.0.1:1/v1", "model": "scribe", "first_wait_s": 0.0}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        for path in APIS:
            assert refused(server, path)[0] == 503
        shown = StudioHandlers(server.engine, Gallery(tmp_path), server.app.state.service.hooks).enhance(
            PROMPT
        )
        assert shown[0] == PROMPT and "did not answer" in shown[1] and "127.0.0.1" not in shown[1]
        assert server.http.post(APIS[0], json={"prompt": PROMPT}).status_code == 200


def test_callers_wait_for_a_silent_model_no_longer_than_a_minute_or_so():
    endpoint = ServerSettings.of({"enhance": {"url": "http://127.0.0.1:1/v1", "model": "scribe"}}).enhance
    assert endpoint.max_attempts * endpoint.timeout_s + endpoint.first_wait_s <= 75


@pytest.mark.parametrize("path", APIS)
def test_without_a_model_the_wish_is_a_400_that_names_it(tmp_path, path):
    values = {"state": tmp_path, "is_signing": False}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        status, error = refused(server, path)
    assert (status, error["code"], error["param"]) == (400, "invalid_value", "enhance")
    assert "no language model" in error["message"]
