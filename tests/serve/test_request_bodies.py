"""Bodies of requests: what is too large, too much or unknown costs the server nothing, and is named."""

import json
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import httpx2
import pytest
from running import serving, until

from lens.serve.api import bodies
from lens.serve.retry_after import HeldRequests

JSON = {"Content-Type": "application/json"}
GENERATIONS, EDITS, JOBS = "/v1/images/generations", "/v1/images/edits", "/v1/jobs"
PNG_START = ("in.png", b"\x89PNG")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("bodies")) as running:
        yield running


def error_of(answer):
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["message"]


def named(*names):
    return ("{" + ",".join(f'"{name}":1' for name in names) + "}").encode()


def test_json_is_parsed_while_the_server_answers_others(server, monkeypatch):
    answered, parse = threading.Event(), bodies.parse_json

    def parse_slowly(*values):
        assert answered.wait(10), "no other request was answered while a body was parsed"
        return parse(*values)

    monkeypatch.setattr(bodies, "parse_json", parse_slowly)
    for path in (GENERATIONS, JOBS, EDITS):
        answered.clear()
        posting = ThreadPoolExecutor(1).submit(httpx2.post, f"{server.base}{path}", json={"n": 99})
        assert httpx2.get(f"{server.base}/healthz", timeout=5).status_code == 200
        answered.set()
        assert posting.result(10).status_code == 400


@pytest.mark.parametrize("path", [GENERATIONS, JOBS])
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_long_prompt_is_read_while_the_server_answers_others(server, monkeypatch, path, is_stream):
    answered, reading, service = threading.Event(), threading.Event(), server.app.state.service

    def read_slowly(_):
        reading.set()
        assert answered.wait(10), "no other request was answered while a prompt was read"
        return []

    monkeypatch.setattr(service, "request_warnings", read_slowly)
    body = {"prompt": "a fox", "size": "64x64"} | ({"stream": is_stream} if path == GENERATIONS else {})
    posting = ThreadPoolExecutor(1).submit(httpx2.post, f"{server.base}{path}", json=body, timeout=20)
    assert reading.wait(10)
    assert httpx2.get(f"{server.base}/healthz", timeout=5).status_code == 200
    answered.set()
    assert posting.result(10).status_code in (200, 201)


@pytest.mark.parametrize("path", [GENERATIONS, JOBS, EDITS])
@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b'{"prompt":"a","loras":[' + b",".join([b"{}"] * 30_000) + b"]}", "loras", "30000 entries"),
        (b'{"prompt":"a","loras":[' + named(*range(30_000)) + b"]}", "loras", "30000 entries"),
        (b'{"prompt":{"a":[' + b",".join([b"[]"] * 30_000) + b"]}}", "prompt", "30000 entries"),
        (named(*(f"k{number}" for number in range(30_000))), "k0", "Unknown parameter: 'k0'"),
        (named("k" * 100_000), "k" * 100 + "...", "Unknown parameter"),
    ],
    ids=["empty LoRAs", "names in a LoRA", "lists in a prompt", "unknown names", "a long name"],
)
def test_too_much_is_refused_by_its_first_instance_before_it_is_validated(server, path, body, param, words):
    answer = server.http.post(path, content=body, headers=JSON)
    status, named_param, message = error_of(answer)
    assert (status, named_param) == (400, param) and words in message
    assert len(answer.content) < 1000


@pytest.mark.parametrize("path", [GENERATIONS, JOBS, EDITS])
def test_json_may_have_a_megabyte_beside_images(server, path):
    body = b'{"prompt":"a","loras":[' + b",".join([b"{}"] * 400_000) + b"]}"
    assert error_of(server.http.post(path, content=body, headers=JSON))[0] == 413


def test_base64_of_images_does_not_count(server):
    image = json.dumps({"prompt": "a fox", "image": "A" * 3_000_000}).encode()
    status, param, message = error_of(server.http.post(JOBS, content=image, headers=JSON))
    assert (status, param) == (400, "image") and "PNG" in message
    assert error_of(server.http.post(GENERATIONS, content=image, headers=JSON))[0] == 413


STRICT = [
    (b'{"prompt": "\\ud800"}', "lone|hex escape"),
    (b'{"prompt": "a", "guidance": 2, "negative_prompt": "x\\udc00"}', "lone|hex escape"),
    (b'{"\\ud800": 1}', "hex escape"),
    (b'{"prompt": "a", "prompt": "b"}', "duplicate"),
    (b'{"prompt": "a", "loras": [{"name": "ink", "name": "oil"}]}', "duplicate"),
    (b'{"prompt": "a", "deadline_s": Infinity}', "JSON"),
    (b'{"prompt": "a", "deadline_s": NaN}', "JSON"),
    (b'{"prompt": "a", "deadline_s": 1e999}', "deadline_s"),
    (b'{"prompt": "a", "guidance": -1e999}', "guidance"),
    (b'{"prompt": "a", "n": ' + b"1" * 5000 + b"}", "JSON"),
    (b'{"prompt": "a", "loras": ' + b"[" * 5000 + b"]" * 5000 + b"}", "recursion"),
    ('{"prompt": "a"}'.encode("utf-16"), "UTF-8"),
    (b'{"prompt": "\xff"}', "UTF-8"),
    (b"", "JSON"),
    (b'"a fox"', "object"),
]


@pytest.mark.parametrize("path", [GENERATIONS, JOBS, EDITS])
@pytest.mark.parametrize(("body", "words"), STRICT, ids=lambda value: repr(value)[:40])
def test_json_that_means_nothing_or_two_things_is_a_400(server, path, body, words):
    if path == EDITS:
        body = body.replace(b'{"prompt"', b'{"images": [{"image_url": "AAAA"}], "prompt"')
    status, _, message = error_of(server.http.post(path, content=body, headers=JSON))
    assert status == 400 and any(word in message for word in words.split("|")), message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"loras": "[" * 5000}, "loras"), ({"loras": "1" * 5000}, "loras"), ({"loras": '"\\ud800"'}, "loras"),
        ({"loras": '[{"name": "ink", "weight": Infinity}]'}, "loras"), ({"strength": "inf"}, "strength"),
        ({"loras": json.dumps([{}] * 1000)}, "loras"), ({"deadline_s": "nan"}, "deadline_s"),
        ({"n": "1" * 5000}, "n"), ({"steps": "1e999"}, "steps"), ({"user": "x" * 2000}, "user"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_fields_of_a_form_have_the_same_limits(server, fields, param):
    answer = server.http.post(EDITS, files={"image": PNG_START}, data={"prompt": "a fox"} | fields)
    assert error_of(answer)[:2] == (400, param)


@pytest.mark.parametrize("charset", ["unicode_escape", "punycode", "utf-16"])
def test_a_form_is_in_utf_8(server, charset):
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    form = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\\ud800\r\n--b--\r\n'
    assert error_of(server.http.post(EDITS, content=form, headers={"Content-Type": kind}))[0] == 415


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "nonsense", ""])
def test_the_form_of_a_body_is_said(server, kind):
    for path in (GENERATIONS, JOBS, EDITS):
        status, _, message = error_of(server.http.post(path, content=b"a=1", headers={"Content-Type": kind}))
        assert status == 415 and "application/json" in message


def test_large_bodies_share_a_bound(tmp_path):
    """Eight bodies of the largest size may be held; what comes on top is told to wait."""
    head = f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Content-Length: 4000\r\n\r\n"
    with serving(tmp_path, limits={"body_bytes": 4000, "json_bytes": 1024}) as server, ExitStack() as opened:
        address = ("127.0.0.1", int(server.base.rpartition(":")[2]))
        held = [opened.enter_context(socket.create_connection(address, timeout=10)) for _ in range(9)]
        for connection in held:
            connection.sendall(head.encode() + b"A" * 3900)
        (refused,), _, _ = select.select(held, [], [], 10)
        answer = refused.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 429") and b"retry-after: 5" in answer
        opened.close()
        body = {"prompt": "a", "image": "A" * 3500}
        until(lambda: httpx2.post(f"{server.base}{JOBS}", json=body).status_code == 400)


def test_those_who_are_told_to_wait_are_told_by_how_long_the_last_bodies_were_held(monkeypatch):
    now = 100.0
    monkeypatch.setattr("lens.serve.retry_after.time", SimpleNamespace(monotonic=lambda: now))
    held = HeldRequests(unknown_s=5)
    held.begin("first")
    assert held.retry_after_s() == 5
    for _ in range(30):  # each takes 40 s
        held.begin("one")
        now += 40
        held.end("one", counts=True)
    held.begin("refused")
    held.end("refused", counts=False)
    held.end("first", counts=False)
    for name in "abcd":
        held.begin(name)
    now += 20
    assert [round(held.retry_after_s()) for _ in range(3)] == [20, 30, 40]  # one place after the other


@pytest.mark.parametrize("name", ["prompt", "negative_prompt", "user", "safety_identifier"])
def test_texts_have_no_nul(server, name):
    body = {"prompt": "a fox", "guidance": 2} | {name: "a\0b"}
    assert error_of(server.http.post(JOBS, json=body))[:2] == (400, name)


def test_the_log_of_a_database_error_holds_no_prompt(tmp_path, caplog):
    with serving(tmp_path) as server:
        with server.store.database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE jobs")
        assert server.http.post(JOBS, json={"prompt": "a secret fox"}).status_code >= 500
    assert "no such table: jobs" in caplog.text and "secret" not in caplog.text
