"""Prompt enhancement by a language model; a real server plays the model."""

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
ENHANCED = "A red fox in fresh snow at dawn, seen from the side."
APIS = ("/v1/images/generations", "/v1/jobs")


def completion(text=ENHANCED, finish="stop", refusal=None):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return 200, json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()


class LanguageModel(Server):
    """Returns the answer that a test sets."""

    answer = completion()

    def answer_to(self, body):
        return self.answer


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    llm = LanguageModel()
    values = {"state": tmp_path_factory.mktemp("enhance"), "is_signing": False}
    values["enhance"] = {"url": llm.url, "model": "scribe", "first_wait_s": 0.0}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        yield server, llm
    llm.close()


@pytest.fixture
def server(running):
    return running[0]


@pytest.fixture
def llm(running):
    running[1].answer, running[1].asked = completion(), []
    return running[1]


def refusal_of(server, path, prompt=PROMPT):
    """Return the status and the error of an enhanced request; nothing is generated."""
    num_requests = len(server.engine.requests)
    answer = server.http.post(path, json={"prompt": prompt, "enhance": True}, timeout=30)
    assert len(server.engine.requests) == num_requests
    return answer.status_code, answer.json()["error"]


def test_the_enhanced_prompt_is_generated_returned_and_recorded_in_the_image(server, llm, tmp_path):
    answer = server.client.images.generate(prompt=PROMPT, n=2, extra_body={"enhance": True})
    assert [one.revised_prompt for one in answer.data] == [ENHANCED, ENHANCED]
    assert [request.prompt for request in server.engine.requests[-2:]] == [ENHANCED, ENHANCED]
    path = tmp_path / "image.png"
    path.write_bytes(base64.b64decode(answer.data[0].b64_json))
    assert read_image_metadata(path).prompt == ENHANCED
    messages = [{"role": "system", "content": ENHANCER_SYSTEM_PROMPT}, {"role": "user", "content": PROMPT}]
    (asked,) = llm.asked
    assert (asked.path, asked.body) == ("/v1/chat/completions", {"model": "scribe", "messages": messages})


def test_a_job_generates_the_enhanced_prompt(server, llm):
    job = server.http.post("/v1/jobs", json={"prompt": PROMPT, "enhance": True}).json()
    assert job["request"]["prompt"] == ENHANCED
    until(lambda: server.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "done")
    assert server.engine.requests[-1].prompt == ENHANCED and len(llm.asked) == 1


def test_a_job_that_is_sent_again_is_not_enhanced_again(server, llm):
    def sent():
        body, headers = {"prompt": PROMPT, "enhance": True}, {"Idempotency-Key": "one fox"}
        return server.http.post("/v1/jobs", json=body, headers=headers).json()["id"]

    assert sent() == sent() and len(llm.asked) == 1


def test_a_prompt_is_enhanced_only_on_request(server, llm):
    for own in ({}, {"enhance": False}):
        answer = server.client.images.generate(prompt=PROMPT, extra_body=own)
        assert server.engine.requests[-1].prompt == PROMPT
        assert "revised_prompt" not in answer.data[0].model_fields_set
    assert llm.asked == []


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (completion("REFUSED"), "declined"),
        (completion("**REFUSED.**\n"), "declined"),
        (completion(None, refusal="I draw no real people."), "I draw no real people."),
        (completion("A fox that", "content_filter"), "declined"),
    ],
    ids=["word", "decorated word", "refusal", "filter"],
)
def test_a_prompt_that_the_model_refuses_is_a_400_with_its_reason(server, llm, path, answer, says):
    llm.answer = answer
    status, error = refusal_of(server, path)
    assert (status, error["code"], error["param"]) == (400, "content_policy_violation", "prompt")
    assert says in error["message"] and "A fox that" not in error["message"]
    assert len(llm.asked) == 1


@pytest.mark.parametrize("path", APIS)
def test_the_enhanced_prompt_is_moderated(server, llm, path):
    llm.answer = completion("A naked child.")
    status, error = refusal_of(server, path)
    assert (status, error["code"], error["param"]) == (400, "content_policy_violation", "prompt")


@pytest.mark.parametrize("answer", [completion(""), completion(" \n"), completion("A red fox in", "length")])
def test_an_empty_or_truncated_answer_leaves_the_prompt_unchanged(server, llm, answer):
    llm.answer = answer
    made = server.client.images.generate(prompt=PROMPT, extra_body={"enhance": True})
    assert made.data[0].revised_prompt == server.engine.requests[-1].prompt == PROMPT


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    "answer", [(500, b""), (401, b"secret"), (200, b"<html>"), (200, b"{}")], ids=["500", "401", "html", "{}"]
)
def test_a_model_that_fails_or_answers_nonsense_is_a_503_without_details(
    server, llm, path, answer
):
    llm.answer = answer
    status, error = refusal_of(server, path)
    assert (status, error["code"], error["param"]) == (503, "enhance_failed", "enhance")
    assert "language model" in error["message"]
    assert not any(inside in error["message"] for inside in (llm.url, "secret", "scribe"))


@pytest.mark.parametrize("text", ["a fox\0 in snow", "a fox \ud800 in snow"], ids=["NUL", "surrogate"])
def test_characters_that_files_cannot_hold_are_removed_from_the_answer(server, llm, text):
    llm.answer = completion(text)
    made = server.client.images.generate(prompt=PROMPT, extra_body={"enhance": True})
    assert made.data[0].revised_prompt.replace("?", "").split() == ["a", "fox", "in", "snow"]


def test_an_unreachable_model_is_a_503_and_other_requests_succeed(tmp_path):
    values = {"state": tmp_path, "is_signing": False}
    values["enhance"] = {"url": "http://127.0.0.1:1/v1", "model": "scribe", "first_wait_s": 0.0}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        for path in APIS:
            assert refusal_of(server, path)[0] == 503
        shown = StudioHandlers(server.app.state.service, Gallery(tmp_path)).enhance(PROMPT, "me")
        assert shown[0] == PROMPT and "did not answer" in shown[1] and "127.0.0.1" not in shown[1]
        assert server.http.post(APIS[0], json={"prompt": PROMPT}).status_code == 200


def test_callers_wait_at_most_75_seconds_for_a_model_that_does_not_answer():
    endpoint = ServerSettings.of({"enhance": {"url": "http://127.0.0.1:1/v1", "model": "scribe"}}).enhance
    assert endpoint.max_attempts * endpoint.timeout_s + endpoint.first_wait_s <= 75


@pytest.mark.parametrize("path", APIS)
def test_without_a_model_enhance_is_a_400_that_names_it(tmp_path, path):
    values = {"state": tmp_path, "is_signing": False}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        status, error = refusal_of(server, path)
    assert (status, error["code"], error["param"]) == (400, "invalid_value", "enhance")
    assert "no language model" in error["message"]
