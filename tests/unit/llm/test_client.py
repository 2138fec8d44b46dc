"""Questions get their answer through whatever a real server on this machine does to them."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_server import Server

from lens.errors import SettingError
from lens.llm.client import ChatClient, ChatError, Endpoint, RequestThrottle, image_part, text_part

QUESTION = [{"role": "user", "content": [text_part("What is this?"), image_part(b"\xff\xd8", "image/jpeg")]}]


def completion(text: str | None = "a fox", finish: str = "stop", refusal: str | None = None) -> bytes:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}).encode()


def chat_with(server: Server, **changes) -> tuple[ChatClient, list[float]]:
    waits: list[float] = []
    endpoint = Endpoint.of({"url": server.url, "model": "seer", "first_wait_s": 1.0} | changes)
    return ChatClient(endpoint, sleep=waits.append), waits


OK = (200, completion())


def test_an_answer_comes_with_its_tokens_and_the_question_as_the_api_has_it(served, monkeypatch):
    monkeypatch.setenv("SEER_KEY", "secret")
    server = served(OK)
    chat, _ = chat_with(server, api_key_variable="SEER_KEY")
    reply = chat.complete(QUESTION, temperature=0.2, max_tokens=9)
    assert reply == ("a fox", False, False, 11, 3)
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert body == {"model": "seer", "messages": QUESTION, "temperature": 0.2, "max_tokens": 9}
    assert body["messages"][0]["content"][1]["image_url"]["url"] == "data:image/jpeg;base64,/9g="


def test_a_busy_server_is_asked_again_and_its_wish_to_wait_is_kept(served):
    server = served((429, b"slow down", {"retry-after": "7"}), (500, b""), (503, b""), OK)
    chat, waits = chat_with(server)
    assert chat.complete(QUESTION).text == "a fox"
    assert len(server.asked) == 4
    assert waits[0] == 7.0
    assert 1.0 <= waits[1] <= 2.0 and 2.0 <= waits[2] <= 4.0, "waits double, drawn from half of each up"


@pytest.mark.parametrize("nonsense", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}'])
def test_an_answer_that_is_none_is_asked_for_again(served, nonsense):
    server = served((200, nonsense), OK)
    chat, _ = chat_with(server)
    assert chat.complete(QUESTION).text == "a fox"


def test_a_silent_server_times_out_and_the_next_attempt_answers(served):
    server = served(0.6, OK)
    chat, _ = chat_with(server, timeout_s=0.3)
    assert chat.complete(QUESTION).text == "a fox"


def test_after_the_last_attempt_the_error_says_what_happened(served):
    server = served((500, b""))
    chat, waits = chat_with(server, max_attempts=3)
    with pytest.raises(ChatError, match=r"answers 500\. Gave up after 3 attempts") as raised:
        chat.complete(QUESTION)
    assert not raised.value.is_final
    assert len(server.asked) == 3 and len(waits) == 2


@pytest.mark.parametrize(("status", "says"), [(400, "no such model"), (401, "Check the key in OPENAI_API")])
def test_what_cannot_succeed_is_not_tried_again(served, status, says):
    server = served((status, b"no such model"))
    chat, _ = chat_with(server)
    with pytest.raises(ChatError, match=says) as raised:
        chat.complete(QUESTION)
    assert raised.value.is_final and len(server.asked) == 1


def test_a_server_that_is_not_there_is_an_error_that_names_it(served):
    server = served(OK)
    server.http.server_close()
    chat, _ = chat_with(server, max_attempts=2)
    with pytest.raises(ChatError, match="cannot be reached"):
        chat.complete(QUESTION)


@pytest.mark.parametrize(
    "content", [completion(None, refusal="I can't help with that."), completion("", "content_filter")]
)
def test_a_refusal_is_told_apart_from_an_answer(served, content):
    chat, _ = chat_with(served((200, content)))
    assert chat.complete(QUESTION).is_refused


def test_an_answer_that_ran_out_of_length_says_so(served):
    chat, _ = chat_with(served((200, completion("a fox that", "length"))))
    assert chat.complete(QUESTION).is_cut


def test_log_probabilities_come_by_token_and_place_where_they_are_told(served):
    likeliest = [{"token": "1", "logprob": -0.1}, {"token": "0", "logprob": -2.5}]
    places = [{"token": "1", "logprob": -0.1, "top_logprobs": likeliest}, {"token": ".", "logprob": -0.7}]
    answer = json.loads(completion("1."))
    answer["choices"][0]["logprobs"] = {"content": places}
    server = served((200, json.dumps(answer).encode()), OK)
    chat, _ = chat_with(server)
    reply, log_probs = chat.complete_with_logprobs(QUESTION, 5, max_tokens=2)
    assert reply.text == "1." and log_probs == ({"1": -0.1, "0": -2.5}, {".": -0.7})
    body = server.asked[0][2]
    assert body["logprobs"] is True and body["top_logprobs"] == 5 and body["max_tokens"] == 2
    assert chat.complete_with_logprobs(QUESTION, 5) == (chat.complete(QUESTION), ())


def test_threads_share_one_chat(served):
    server = served(OK)
    chat, _ = chat_with(server)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: chat.complete(QUESTION).text, range(24)))
    assert replies == ["a fox"] * 24 and len(server.asked) == 24


def test_calls_are_spaced_over_all_threads():
    waits: list[float] = []
    pace = RequestThrottle(60.0, sleep=waits.append)
    for _ in range(4):
        pace.wait()
    assert waits == pytest.approx([1.0, 2.0, 3.0], abs=0.05)


def test_an_address_that_is_none_is_refused_at_once():
    with pytest.raises(SettingError, match="begin with http"):
        ChatClient(Endpoint(url="seer.example/v1", model="seer"))


def test_a_server_that_sends_slowly_reaches_the_limit_of_an_attempt(served):
    def trickle(request):
        request.send_response(200)
        request.end_headers()
        try:
            for _ in range(40):
                request.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass  # the client hung up

    server = served(trickle, OK)
    chat, _ = chat_with(server, timeout_s=0.2)
    started_at = time.monotonic()
    assert chat.complete(QUESTION).text == "a fox"
    assert time.monotonic() - started_at < 1, "each part came in time, the whole did not"


def test_a_body_that_cannot_be_decoded_is_asked_for_again(served):
    server = served((200, b"no gzip", {"content-encoding": "gzip"}), OK)
    chat, _ = chat_with(server)
    assert chat.complete(QUESTION).text == "a fox"


def test_an_answer_in_parts_is_its_text_without_what_was_thought(served):
    texts = [{"type": "text", "text": "a "}, {"type": "text", "text": "fox"}]
    body = json.loads(completion())
    body["choices"][0]["message"]["content"] = [{"type": "thinking", "thinking": "hm"}, *texts]
    chat, _ = chat_with(served((200, json.dumps(body).encode())))
    assert chat.complete(QUESTION).text == "a fox"
