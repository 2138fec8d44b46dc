"""A real HTTP server on this machine for tests of what speaks to servers."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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
