"""Servers of tests: real uvicorn on a free port, in a thread."""

import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx2
import openai
import uvicorn
from fake_engine import FakeEngine

from lens.serve.api.app import create_app
from lens.serve.api.generation import NO_HOOKS
from lens.serve.connections import uvicorn_config
from lens.serve.settings.server import RequestLimits, ServerSettings
from lens.serve.storage.server_state import open_server_state

DEFAULT_LIMITS = RequestLimits()


@contextmanager
def serving(state, engine=None, hooks=NO_HOOKS, **values):
    """Start a server; yields its parts, a client of OpenAI's, and a plain one as `http`."""
    engine = engine or FakeEngine()
    settings = ServerSettings.of({"state": state, "drain_s": 0.2} | values)
    store = open_server_state(settings)
    app = create_app(engine, settings, store, hooks)
    try:
        listening = answering(app, settings.limits)
        with listening as base, client_of(base) as client, httpx2.Client(base_url=base) as http:
            parts = {"store": store, "engine": engine, "app": app, "settings": settings}
            yield SimpleNamespace(base=base, client=client, http=http, **parts)
    finally:
        store.close()


@contextmanager
def answering(app, limits=DEFAULT_LIMITS):
    """Serve an app; yields its address."""
    config = uvicorn_config(app, limits, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def client_of(base, key="none"):
    return openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=30)


def until(claim, timeout_s=10.0):
    """Wait until a claim holds; return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found
