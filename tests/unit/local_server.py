"""A real HTTP server on this machine for tests of what speaks to servers."""

import json
import threading
import time
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answering(BaseHTTPRequestHandler):
    """A handler that keeps quiet and knows how to send an answer whole."""

    def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # with 5, the default, threads that connect at once wait a second to be let in


def started_server(handler: type[Answering]) -> ThreadingHTTPServer:
    """Return a server that answers in threads of its own until it is shut down."""
    server = _Server(("127.0.0.1", 0), handler)
    # Looks often whether it is to stop: the half second by default is most of what a test takes.
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


Answer = tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | float | Callable[[Answering], None]
"""A status, content and maybe headers; seconds of silence; or what sends an answer in its own way."""


class Asked(NamedTuple):
    """A request that a server had."""

    path: str
    headers: Message
    body: Any


class Server:
    """Answers JSON with what it is told, in order, the last one for ever; keeps what it was asked."""

    def __init__(self, *answers: Answer):
        self.asked: list[Asked] = []
        self._answers, self._lock = list(answers), threading.Lock()
        outer = self

        class Handler(Answering):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer._lock:
                    outer.asked.append(Asked(self.path, self.headers, body))
                    answer = outer.answer_to(body)
                if callable(answer):
                    answer(self)
                elif isinstance(answer, tuple):
                    status, content, *headers = answer
                    self.send(status, dict(*headers), content)
                else:
                    time.sleep(answer)

        self.http = started_server(Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer_to(self, body: Any) -> Answer:
        """Return the next answer. Asked by one thread at a time."""
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
