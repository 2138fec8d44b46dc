"""The reasoner of a server: each outcome through the API, jobs and streams; a real server plays the model."""

import base64
import io
import json
import stat
import threading
import time
import zlib
from dataclasses import replace

import pytest
import yaml
from fake_engine import MODELS, FakeEngine
from local_server import Server
from PIL import Image
from running import serving, until

from lens.errors import SettingError
from lens.reasoner.system_prompts import read_system_prompt
from lens.sampling.image_metadata import read_image_metadata
from lens.serve.safety.moderation import DEFAULT_POLICY
from lens.serve.server import check_start, create_hooks
from lens.serve.settings.server import ServerSettings
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import StudioHandlers

PROMPT = "a fox"
ADDED = ", in fresh snow at dawn"
"""What the model adds to a prompt unless a test gives it another answer."""
GENERATIONS, JOBS = APIS = ("/v1/images/generations", "/v1/jobs")
EDITS = "/v1/images/edits"
CATEGORY = {"name": "gore", "description": "Blood for its own sake."}


def completion(text, finish="stop", refusal=None):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 30, "completion_tokens": 12}
    choices = [{"message": message, "finish_reason": finish}]
    return 200, json.dumps({"choices": choices, "usage": usage}).encode()


class LanguageModel(Server):
    """Returns the answers that a test sets: to the question whether to refuse, and to all other requests."""

    answer, verdict = None, completion("none")

    def answer_to(self, body):
        if is_question(body):
            return self.verdict
        return self.answer or completion(requests_of(body) + ADDED)

    @property
    def rewritings(self):
        return [one.body for one in self.asked if not is_question(one.body)]


def is_question(body):
    return CATEGORY["description"] in json.dumps(body["messages"])


def requests_of(request):
    """The text of the last message, which holds the request."""
    return request["messages"][-1]["content"]


def settings_of(folder, llm=None, **values):
    policy = folder / "policy.yaml"
    rules = {"base": str(DEFAULT_POLICY), "reasoner": {"categories": [CATEGORY]}}
    policy.write_text(yaml.safe_dump(rules | values.pop("rules", {})))
    if llm is not None:
        endpoint = {"url": llm.url, "model": "scribe", "first_wait_s": 0.0}
        values["enhance"] = {**endpoint, "uses_seed": True, **values.get("enhance", {})}
    return {"state": folder, "is_signing": False, "policy": policy, **values}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    llm = LanguageModel()
    values = settings_of(tmp_path_factory.mktemp("enhance"), llm)
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        server.http.timeout = 30  # the first request loads tokenizer and rules
        yield server, llm
    llm.close()


@pytest.fixture
def server(running):
    return running[0]


@pytest.fixture
def llm(running):
    running[1].answer, running[1].verdict, running[1].asked = None, completion("none"), []
    return running[1]


@pytest.fixture
def prompt(request):
    """A prompt that no other test asks about, as answers are kept."""
    return f"a fox of {zlib.crc32(request.node.nodeid.encode())}"


def refusal_of(server, path, prompt, **fields):
    """Return the status and the error of a request with `enhance`; nothing is drawn."""
    num_requests = len(server.engine.requests)
    body = {"prompt": prompt, "enhance": True, **fields}
    answer = server.http.post(path, json=body, timeout=30)
    assert len(server.engine.requests) == num_requests
    return answer.status_code, answer.json()["error"]


def finished_job(server, job):
    until(lambda: server.http.get(f"{JOBS}/{job['id']}").json()["status"] == "done")
    return server.http.get(f"{JOBS}/{job['id']}").json()


def metadata_of(content, folder):
    path = folder / "image.png"
    path.write_bytes(content)
    return read_image_metadata(path)


# Outcomes.


def test_the_refined_prompt_is_drawn_and_both_are_told_and_recorded_in_the_image(
    server, llm, prompt, tmp_path
):
    body = {"prompt": prompt, "n": 2, "enhance": True}
    answer = server.http.post(GENERATIONS, json=body).json()
    drawn = prompt + ADDED
    assert [one["revised_prompt"] for one in answer["data"]] == [drawn, drawn]
    assert [request.prompt for request in server.engine.requests[-2:]] == [drawn, drawn]
    (told,) = answer["enhanced"]
    assert (told["outcome"], told["original"], told["prompt"]) == ("refined", prompt, drawn)
    assert told["usage"]["completion_tokens"] == 12 * len(llm.asked) and answer["warnings"] == []
    assert {check["rule"]: check["is_kept"] for check in told["checks"]}["numbers"]
    metadata = metadata_of(base64.b64decode(answer["data"][0]["b64_json"]), tmp_path)
    assert (metadata.prompt, metadata.original_prompt) == (drawn, prompt)
    assert metadata.reasoner is not None
    assert (metadata.reasoner.outcome, metadata.reasoner.model) == ("refined", "scribe")
    assert metadata.reasoner.system_prompt_hash == read_system_prompt("general").hash
    assert len(llm.rewritings) == 1 and prompt in requests_of(llm.rewritings[0])


def test_a_job_draws_the_refined_prompt_also_when_it_is_read_again(server, llm, prompt):
    job = server.http.post(JOBS, json={"prompt": prompt, "enhance": True}).json()
    assert job["request"]["prompt"].endswith(ADDED) and job["enhanced"][0]["original"] == prompt
    shown = finished_job(server, job)
    assert shown["enhanced"] == job["enhanced"] and len(llm.rewritings) == 1
    assert server.engine.requests[-1].reasoned.original == prompt


def test_a_stream_ends_with_both_prompts(server, llm, prompt):
    body = {"prompt": prompt, "enhance": True, "stream": True}
    events = server.http.post(GENERATIONS, json=body).text.strip().split("\n\n")
    name, data = events[-1].split("\ndata: ")
    assert name == "event: image_generation.completed"
    last = json.loads(data)
    assert last["revised_prompt"].endswith(ADDED) and last["enhanced"][0]["original"] == prompt


def test_an_edit_draws_the_refined_prompt(server, llm, prompt):
    body = {"prompt": prompt, "images": [{"image_url": data_url()}], "enhance": True}
    answer = server.http.post(EDITS, json=body).json()
    assert answer["data"][0]["revised_prompt"] == prompt + ADDED
    assert server.engine.requests[-1].image is not None


def test_each_distinct_prompt_is_asked_about_once(server, llm, prompt):
    body = {"prompt": "a {red|blue} fox", "n": 6, "seed": 6, "enhance": True}
    answer = server.http.post(GENERATIONS, json=body).json()
    assert sorted(one["original"] for one in answer["enhanced"]) == ["a blue fox", "a red fox"]
    assert len(answer["data"]) == 6 and len({requests_of(one) for one in llm.rewritings}) == 2
    server.http.post(GENERATIONS, json=body)
    assert len({requests_of(one) for one in llm.rewritings}) == 2


def test_a_job_that_is_sent_again_is_not_refined_again(server, llm, prompt):

    def sent():
        body, headers = {"prompt": prompt, "enhance": True}, {"Idempotency-Key": "one fox"}
        return server.http.post(JOBS, json=body, headers=headers).json()["id"]

    assert sent() == sent() and len(llm.rewritings) == 1


def test_the_model_is_asked_only_on_request(server, llm):
    for own in ({}, {"enhance": False}):
        answer = server.http.post(GENERATIONS, json={"prompt": PROMPT, **own}).json()
        assert server.engine.requests[-1].prompt == PROMPT and "enhanced" not in answer
        assert "revised_prompt" not in answer["data"][0]
    assert llm.asked == []


def data_url():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (GENERATIONS, {}),
        (GENERATIONS, {"stream": True}),
        (GENERATIONS, {"prompt": "a {red|blue} cat", "n": 6, "seed": 6}),
        (EDITS, {"images": [{"image_url": data_url()}]}),
        (JOBS, {}),
    ],
    ids=["image", "stream", "several prompts", "edit", "job"],
)
def test_a_refused_prompt_is_a_400_with_its_category_and_a_record_without_its_text(
    server, llm, path, fields, prompt
):
    llm.verdict = completion("gore")
    status, error = refusal_of(server, path, **{"prompt": prompt} | fields)
    assert (status, error["code"], error["param"]) == (400, "prompt_refused", "prompt")
    assert error["category"] == "gore" and "gore" in error["message"]
    assert llm.rewritings == []
    lines = (server.settings.state / "refusals.jsonl").read_text().splitlines()
    (record,) = (one for one in map(json.loads, lines) if one["id"] in error["message"])
    assert (record["by"], record["category"]) == ("reasoner scribe", "gore")
    assert not any(animal in json.dumps(record) for animal in ("fox of", "red cat", "blue cat"))


def test_the_record_of_a_refusal_has_the_prompt_where_the_operator_wants_it(tmp_path, llm, prompt):
    llm.verdict = completion("gore")
    values = settings_of(tmp_path, llm, rules={"audit": {"file": "kept.jsonl", "with_prompt": True}})
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        refusal_of(server, GENERATIONS, prompt)
    assert json.loads((tmp_path / "kept.jsonl").read_text())["prompt"] == prompt


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (completion(None, refusal="I draw no real people."), "I draw no real people."),
        (completion("A fox that", "content_filter"), "declined"),
        (completion("I'm sorry, but I can't help with that."), "declined"),
    ],
    ids=["refusal", "filter", "sentence"],
)
def test_a_refusal_of_the_model_itself_is_never_drawn(server, llm, path, answer, says, prompt):
    llm.answer = answer
    status, error = refusal_of(server, path, prompt)
    assert (status, error["code"], error["param"]) == (400, "prompt_refused", "prompt")
    assert says in error["message"] and "A fox that" not in error["message"] and "category" not in error


@pytest.mark.parametrize(
    ("verdict", "answer", "shown", "told"),
    [
        ("none", None, ADDED, "Refined by scribe"),
        ("gore", None, "", "category gore"),
        ("none", completion(""), "", "could not be refined"),
    ],
    ids=["refined", "refused", "failed"],
)
def test_the_studio_shows_each_outcome(server, llm, prompt, tmp_path, verdict, answer, shown, told):
    llm.verdict, llm.answer = completion(verdict), answer
    view = StudioHandlers(server.app.state.service, Gallery(tmp_path)).enhance(prompt, "me", "lens-nano")
    assert view.prompt == prompt + shown and told in view.line_html


@pytest.mark.parametrize("path", APIS)
def test_a_question_without_an_answer_is_a_503_as_the_policy_says(server, llm, path, prompt):
    llm.verdict = (500, b"")
    status, error = refusal_of(server, path, prompt)
    assert (status, error["code"], error["param"]) == (503, "reasoner_unavailable", "enhance")
    assert llm.url not in error["message"] and llm.rewritings == []


def test_the_refined_prompt_is_moderated(server, llm, prompt):
    llm.answer = completion(f"{prompt}, a naked child.")
    status, error = refusal_of(server, GENERATIONS, prompt)
    assert (status, error["code"], error["param"]) == (400, "content_policy_violation", "prompt")


def test_a_prompt_that_the_words_of_the_policy_refuse_never_reaches_the_model(server, llm):
    status, error = refusal_of(server, GENERATIONS, "a naked child")
    assert (status, error["code"]) == (400, "content_policy_violation") and llm.asked == []


FAILURES = {
    "empty": completion(""), "blank": completion(" \n"), "cut": completion("A red fox in", "length"),
    "500": (500, b""), "401": (401, b"secret"), "html": (200, b"<html>"), "{}": (200, b"{}"),
    "lost number": completion("A fox."),
}  # fmt: skip


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("failure", FAILURES)
def test_what_fails_is_told_and_the_prompt_is_drawn_as_it_was_written(server, llm, path, failure, prompt):
    llm.answer = FAILURES[failure]
    answer = server.http.post(path, json={"prompt": prompt, "enhance": True}, timeout=30).json()
    (told,), (warning, *_) = answer["enhanced"], answer["warnings"]
    assert (told["outcome"], told["prompt"]) == ("failed", prompt)
    assert told["reason"] and "could not be refined" in warning
    assert not any(inside in warning + told["reason"] for inside in (llm.url, "secret"))
    if path == JOBS:
        finished_job(server, answer)
    assert server.engine.requests[-1].prompt == prompt
    assert 1 <= len(llm.rewritings) <= 4  # two requests, each tried twice


def test_an_unreachable_model_is_told_and_other_requests_succeed(tmp_path):
    values = settings_of(tmp_path, rules={"reasoner": {"categories": []}})
    values["enhance"] = {"url": "http://127.0.0.1:1/v1", "model": "scribe", "first_wait_s": 0.0}
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        answer = server.http.post(GENERATIONS, json={"prompt": PROMPT, "enhance": True}).json()
        assert answer["enhanced"][0]["outcome"] == "failed" and "127.0.0.1" not in str(answer["enhanced"])
        shown = StudioHandlers(server.app.state.service, Gallery(tmp_path)).enhance(PROMPT, "me")
        assert shown.prompt == PROMPT and "could not be refined" in shown.line_html
        assert "127.0.0.1" not in shown.line_html
        assert server.http.post(GENERATIONS, json={"prompt": PROMPT}).status_code == 200


# Bounds.


class Slow:
    """An answer that comes when a test says so."""

    def __init__(self):
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def __call__(self, handler):
        self.is_asked.set()
        self.may_answer.wait(30)
        status, content = completion("A fox.")
        try:
            handler.send(status, {}, content)
        except OSError:  # the other side has given up
            return


@pytest.fixture
def slow(llm):
    answer = llm.answer = Slow()
    yield answer
    answer.may_answer.set()


@pytest.mark.parametrize("path", APIS)
def test_a_client_that_goes_while_the_model_thinks_stops_it_and_nothing_is_drawn(server, slow, path, prompt):
    num_drawn, num_jobs = len(server.engine.requests), len(server.http.get(JOBS).json()["data"])
    num_stopped = server.app.state.service.reasoning.ends()["stopped"]
    with pytest.raises(Exception, match="timed out"):
        server.http.post(path, json={"prompt": prompt, "enhance": True}, timeout=0.3)
    assert slow.is_asked.is_set()
    until(lambda: server.app.state.service.reasoning.ends()["stopped"] == num_stopped + 1)
    assert len(server.engine.requests) == num_drawn
    assert len(server.http.get(JOBS).json()["data"]) == num_jobs
    assert 'lens_reasoned_prompts_total{outcome="stopped"}' in server.http.get("/metrics").text


def test_a_server_that_drains_stops_its_reasoners(server, slow, prompt):
    found = []
    caller = threading.Thread(target=lambda: found.append(refusal_of(server, GENERATIONS, prompt)))
    caller.start()
    assert slow.is_asked.wait(10)
    server.app.state.service.is_draining = True
    try:
        caller.join(10)
    finally:
        server.app.state.service.is_draining = False
    ((status, error),) = found
    assert (status, error["code"]) == (503, "draining")


def test_more_prompts_than_places_are_turned_away(tmp_path, llm, slow, prompt, monkeypatch):
    monkeypatch.setattr("lens.serve.api.reasoning.MAX_OPEN_REQUESTS", 1)
    values = settings_of(tmp_path, llm)
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        body = {"prompt": prompt, "enhance": True}
        caller = threading.Thread(target=lambda: server.http.post(GENERATIONS, json=body, timeout=30))
        caller.start()
        assert slow.is_asked.wait(10)
        answer = server.http.post(GENERATIONS, json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
        assert server.http.post(GENERATIONS, json={"prompt": PROMPT}).status_code == 200
        slow.may_answer.set()
        caller.join(10)


def test_callers_wait_at_most_two_minutes_for_a_model_that_does_not_answer(tmp_path, llm, slow, prompt):
    settings = ServerSettings.of(settings_of(tmp_path, llm))
    assert settings.enhance is not None and settings.enhance.time_limit_s == 120
    values = settings_of(tmp_path, llm, enhance={"time_limit_s": 0.2})
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        started_at = time.monotonic()
        answer = server.http.post(GENERATIONS, json={"prompt": prompt, "enhance": True}).json()
        assert time.monotonic() - started_at < 5
    assert answer["enhanced"][0]["outcome"] == "failed"


def test_answers_are_kept_for_the_owner_alone(server, llm, prompt):
    for _ in range(2):
        server.http.post(GENERATIONS, json={"prompt": prompt, "enhance": True})
    assert len(llm.rewritings) == 1
    folder = server.settings.state / "reasoner"
    file = folder / "lens-nano-turbo.jsonl"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE(file.stat().st_mode) == 0o600


# Which reasoner a model has.


class FullModelEngine(FakeEngine):
    def models(self):
        return [*MODELS, replace(MODELS[0], name="lens", variant="base")]


@pytest.mark.parametrize("backend", [None, "nano"])
def test_without_a_language_model_nano_models_have_rules_and_others_say_what_is_missing(tmp_path, backend):
    values = settings_of(tmp_path) | ({"enhance": {"backend": backend}} if backend else {})
    hooks = create_hooks(ServerSettings.of(values))
    with serving(hooks=hooks, engine=FullModelEngine(), **values) as server:
        body = {"prompt": "could you draw me two apples please", "model": "lens-nano", "enhance": True}
        (told,) = server.http.post(GENERATIONS, json=body).json()["enhanced"]
        assert told["outcome"] == "refined" and told["model"].startswith("nano-rules")
        assert told["prompt"] == "two red apples"
        for path in APIS:
            status, error = refusal_of(server, path, PROMPT, model="lens")
            assert (status, error["code"], error["param"]) == (400, "invalid_value", "enhance")
            assert "no language model" in error["message"] and "for lens" in error["message"]


def test_off_is_off_whatever_is_configured(tmp_path, llm, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    values = settings_of(tmp_path, llm, is_enhancing=False)
    with serving(hooks=create_hooks(ServerSettings.of(values)), **values) as server:
        assert refusal_of(server, GENERATIONS, PROMPT)[0] == 400
        assert not server.app.state.service.can_enhance
    assert llm.asked == []


@pytest.mark.parametrize(
    ("enhance", "says"),
    [
        ({"backend": "gpt-oss"}, "endpoint, transformers or nano on a server"),
        (False, "is_enhancing"),
        ({"url": "ftp://model", "model": "scribe"}, "http:// or https://"),
        ({"url": "http://model", "model": "scribe", "systemprompt": "text"}, "system_prompt"),
        ({"url": "http://model", "model": "scribe", "system_prompt": "nobody"}, "geneval-metadata"),
    ],
    ids=["gpt-oss", "false", "url", "name", "system prompt"],
)
def test_settings_of_a_reasoner_that_cannot_be_used_stop_the_start(tmp_path, enhance, says):
    with pytest.raises(SettingError, match=says):
        check_start(ServerSettings.of({"state": tmp_path, "enhance": enhance}))
