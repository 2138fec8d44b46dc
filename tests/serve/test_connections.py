"""Connections: those who send or read nothing are let go, and others are served meanwhile."""

import resource
import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from fake_engine import FakeEngine
from running import serving

from lens.serve.connections import NUM_OTHER_DESCRIPTORS, connection_bound

NUM_CONNECTIONS = 20
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
POST += b"Content-Length: 9000\r\n\r\n"
SLOW = {"connections": NUM_CONNECTIONS, "header_s": 60, "stall_s": 60}
QUICK = {"header_s": 0.3, "stall_s": 0.3, "min_bytes_per_s": 10_000}


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A server that waits long, so that its bound acts and not its deadlines."""
    with serving(tmp_path_factory.mktemp("patient"), limits=SLOW) as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("strict"), limits=QUICK) as running:
        yield running


@pytest.fixture
def connect():
    with ExitStack() as opened:

        def connect_to(server, sent=b""):
            address = "127.0.0.1", int(server.base.rpartition(":")[2])
            connection = opened.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(sent)
            return connection

        yield connect_to


def received(connection):
    """Return what a connection gets until the server closes it."""
    content = b""
    try:
        while piece := connection.recv(65536):
            content += piece
    except ConnectionResetError:
        pass
    return content


@pytest.mark.parametrize("half", [b"", GET[:30], POST[:-1], POST, POST + b"x" * 100], ids=repr)
def test_half_sent_requests_do_not_keep_others_out(patient, connect, half):
    held = [connect(patient, half) for _ in range(3 * NUM_CONNECTIONS)]
    for _ in range(3):
        assert httpx2.get(f"{patient.base}/healthz", timeout=10).status_code == 200
    assert received(held[0]) == b"", "the oldest made room"
    assert not select.select([held[-1]], [], [], 0)[0], "the youngest may go on"


def test_requests_that_are_answered_are_not_cut_off_for_new_ones(tmp_path, connect):
    with serving(tmp_path, FakeEngine(step_s=0.05), limits=SLOW) as server:
        body = b'{"prompt": "a fox", "steps": 20, "stream": true}'
        head = POST.replace(b"jobs", b"images/generations").replace(b"9000", str(len(body)).encode())
        drawing = connect(server, head + body)
        assert drawing.recv(4096).startswith(b"HTTP/1.1 200")
        for _ in range(3 * NUM_CONNECTIONS):
            connect(server)
        seen = b""
        while b"image_generation.completed" not in seen:
            piece = drawing.recv(65536)
            assert piece, "cut off"
            seen += piece


@pytest.mark.parametrize("half", [b"", GET[:30], POST[:-1], b"\r\n"], ids=repr)
@pytest.mark.parametrize("whole", [b"", GET], ids=["at once", "after a request"])
def test_headers_have_a_deadline(strict, connect, whole, half):
    connection = connect(strict, whole)
    if whole:
        assert b"200 OK" in connection.recv(4096)
    if not half and whole:
        return  # uvicorn's own deadline between requests
    connection.sendall(half)
    started_at = time.monotonic()
    content = received(connection)
    assert content.endswith(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    assert time.monotonic() - started_at < 4, "uvicorn waits 5 s, and without end once a byte has come"


def test_a_body_may_be_slow_but_has_to_go_on(strict, connect):
    assert received(connect(strict, POST)) == b""
    steady = connect(strict, POST)
    for _ in range(10):
        steady.sendall(b" " * 900)
        time.sleep(0.06)
    assert b"invalid_json" in steady.recv(4096)


def test_dripping_does_not_extend_the_deadlines(strict, connect):
    for start in (GET[:20], POST):
        dripping = connect(strict, start)
        deadline = time.monotonic() + 5
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                dripping.sendall(b"x")
                time.sleep(0.05)


@pytest.mark.parametrize(
    "sent",
    [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 400_000,
     b"GET /" + b"x" * 400_000,
     POST.replace(b"Content-Length: 9000", b"Transfer-Encoding: chunked") + b"0\r\nX: " + b"x" * 800_000],
    ids=["header", "address", "trailer"],
)  # fmt: skip
def test_headers_have_a_size(patient, connect, sent):
    connection = connect(patient)
    try:
        connection.sendall(sent)
    except ConnectionError:
        return
    assert received(connection)[:12] in (b"", b"HTTP/1.1 431")


def test_a_caller_who_does_not_read_is_let_go(strict, connect):
    connection = connect(strict)  # with buffers as they come: where they are tiny, it sends nothing either
    request = GET.replace(b"/healthz", b"/openapi.json")
    deadline = time.monotonic() + 60
    with pytest.raises(OSError):  # answers pile up until the server stops to wait
        while time.monotonic() < deadline:
            connection.sendall(request)
            time.sleep(0.002)


CHUNKED = POST.replace(b"Content-Length: 9000", b"Transfer-Encoding: chunked")
FORM = b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Type: %s\r\n\r\n"
RAW = [
    b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /%ff%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /healthz\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: [\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    b"GET /v1/jobs?limit=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    POST.replace(b"9000", b"-1"), POST.replace(b"9000", b"9" * 20), POST.replace(b"9000", b"5, 6"),
    POST.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length"),
    CHUNKED + b"F" * 17 + b"\r\n", CHUNKED + b"zz\r\n", FORM % b"multipart/form-data" + b"--x",
    FORM % b"multipart/form-data; boundary=" + b"--x", FORM % b"multipart/form-data; boundary=x" + b"--y",
]  # fmt: skip


@pytest.mark.parametrize("sent", RAW, ids=lambda sent: repr(sent[:60]))
def test_what_is_no_request_is_answered_or_cut_off_without_an_error_here(strict, connect, sent, caplog):
    content = connect(strict, sent).recv(65536)
    assert content[9:10] in (b"", b"2", b"4") and b"Traceback" not in content
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_bound_leaves_room_for_other_files(monkeypatch, caplog):
    for num_files, bound in ((10_000, 512), (1024, 512), (600, 600 - NUM_OTHER_DESCRIPTORS), (100, 16)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, num_files=num_files: (num_files, num_files))
        caplog.clear()
        assert connection_bound(512) == bound
        assert ("LimitNOFILE" in caplog.text) == (bound < 512)


def test_the_unit_allows_more_files_than_connections():
    unit = (Path(__file__).parents[2] / "deploy" / "lens.service").read_text()
    assert int(unit.split("LimitNOFILE=")[1].split()[0]) > 4096
