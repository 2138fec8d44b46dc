"""What is asked of a model is asked once, asked again where it was wrong, and never lost."""

import json
from contextlib import ExitStack, closing

import pytest
from local_server import Server
from writing_server import completion

from lens.llm.batch import EndpointError, InvalidResponse, LLMBatch, LLMTask, chat_messages
from lens.llm.client import LLMSettings


class Scripted(Server):
    """Answers by what was asked: a text, a whole answer of the API, or a status where it is a number."""

    def __init__(self, answer):
        super().__init__()
        self._get_response = answer

    def answer_to(self, body):
        answer = self._get_response(body)
        if isinstance(answer, int):
            return answer, b"no"
        return 200, json.dumps(answer if isinstance(answer, dict) else completion(answer)).encode()


@pytest.fixture
def served():
    with ExitStack() as servers:
        yield lambda answer: servers.enter_context(closing(Scripted(answer)))


def model_at(url: str, **changes) -> LLMSettings:
    endpoint = {"url": url, "model": "writer", "first_wait_s": 0.0, "max_attempts": 2}
    return LLMSettings.of({"endpoint": endpoint, "concurrency": 3} | changes)


def asking_at(url: str, folder, **changes) -> LLMBatch:
    return LLMBatch(model_at(url, **changes), folder / "answers.jsonl")


def even(answer: str) -> int:
    if not answer.isdigit() or int(answer) % 2:
        raise InvalidResponse("odd", f"{answer} is not even")
    return int(answer)


def tasks(count: int) -> list[LLMTask[int]]:
    return [LLMTask(f"task {n}", chat_messages("Count.", f"Say {n}."), even) for n in range(count)]


def said(body) -> str:
    return body["messages"][1]["content"].removeprefix("Say ").removesuffix(".")


def test_an_answer_that_is_wrong_is_asked_for_again_with_what_was_wrong(served, tmp_path):
    server = served(lambda body: said(body) if len(body["messages"]) == 2 else "10")
    with asking_at(server.url, tmp_path) as asking:
        found = dict(asking.run(tasks(4)))
    assert [found[f"task {n}"].result for n in range(4)] == [0, 10, 2, 10]
    assert [found[f"task {n}"].num_tries for n in range(4)] == [1, 2, 1, 2]
    assert found["task 1"][3:] == (200, 100)
    again = next(body for *_, body in server.asked if len(body["messages"]) == 4 and said(body) == "3")
    assert again["messages"][2] == {"role": "assistant", "content": "3"}
    assert "3 is not even" in again["messages"][3]["content"]


def test_what_never_is_right_falls_with_the_reason_and_all_its_tokens(served, tmp_path):
    server = served(lambda body: "7")
    with asking_at(server.url, tmp_path, max_tries=3) as asking:
        ((_, outcome),) = asking.run(tasks(1))
    assert outcome == (None, "odd", 3, 300, 150)


def test_nothing_that_was_answered_is_asked_again(served, tmp_path):
    server = served(said)
    for calls in (7 + 2 * 3, 0):  # the three odd ones have three tries
        with asking_at(server.url, tmp_path) as asking:
            first = dict(asking.run(tasks(7)))
        assert asking.num_calls == calls
    assert len(server.asked) == 13 and len(first) == 7


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"message": {"content": "I must not."}, "finish_reason": "content_filter"}, "refusal"),
        ({"message": {"content": "2"}, "finish_reason": "length"}, "cut"),
    ],
)
def test_refusals_and_answers_that_were_cut_off_are_no_answers(served, tmp_path, message, reason):
    server = served(lambda body: {"choices": [message]})
    with asking_at(server.url, tmp_path, max_tries=1) as asking:
        ((_, outcome),) = asking.run(tasks(1))
    assert (outcome.result, outcome.reason) == (None, reason)


def test_a_question_that_the_endpoint_does_not_take_falls_alone(served, tmp_path):
    server = served(lambda body: 400 if said(body) == "2" else "4")
    with asking_at(server.url, tmp_path) as asking:
        found = dict(asking.run(tasks(6)))
    assert [name for name, one in found.items() if one.reason == "turned_down"] == ["task 2"]
    assert sum(one.result == 4 for one in found.values()) == 5


def test_an_endpoint_that_takes_no_question_at_all_ends_the_run(served, tmp_path):
    server = served(lambda body: 400)
    impatient = asking_at(server.url, tmp_path, give_up_after=5)
    with impatient as asking, pytest.raises(EndpointError, match="answers 400"):
        list(asking.run(tasks(100)))
    assert len(server.asked) < 20


def test_a_wrong_key_ends_the_run_at_once(served, tmp_path):
    server = served(lambda body: 401)
    with asking_at(server.url, tmp_path) as asking, pytest.raises(EndpointError, match="OPENAI_API_KEY"):
        list(asking.run(tasks(100)))
    assert len(server.asked) < 10


def test_a_dead_endpoint_ends_the_run_and_loses_nothing(served, tmp_path):
    server = served(said)
    with asking_at(server.url, tmp_path, max_tries=1) as asking:
        list(asking.run(tasks(4)))
    dead = asking_at("http://127.0.0.1:9/v1", tmp_path, max_tries=1)
    with dead as asking, pytest.raises(EndpointError, match=r"cannot be reached.*run the same command again"):
        list(asking.run(tasks(100)))
    with asking_at(server.url, tmp_path, max_tries=1) as asking:
        assert len(list(asking.run(tasks(6)))) == 6
    assert asking.num_calls == 2


def test_one_hiccup_does_not_keep_others_from_being_asked(served, tmp_path):
    server = served(lambda body: 503 if said(body) == "1" else "4")
    found = []
    with asking_at(server.url, tmp_path) as asking, pytest.raises(EndpointError, match="5 tasks are done"):
        found += asking.run(tasks(6))
    assert asking.num_calls == 5


def test_fields_of_a_request_are_added_and_taken_out(served, tmp_path):
    server = served(said)
    request = {"response_format": {"type": "json_object"}, "max_tokens": None, "temperature": 0.1}
    with asking_at(server.url, tmp_path, request=request) as asking:
        list(asking.run(tasks(1)))
    ((*_, body),) = server.asked
    assert body["response_format"] == {"type": "json_object"} and body["temperature"] == 0.1
    assert "max_tokens" not in body and body["model"] == "writer" and body["seed"] >= 0
