"""A real Chromium for tests of pages, where there is one, and a server of the studio in a thread."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHTS = "chromium*/chrome-linux*/*chrome*"


def chromium() -> str | None:
    """Return the path of a browser: the machine's own, or one that Playwright has downloaded."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    downloaded = (str(path) for path in folder.glob(PLAYWRIGHTS) if os.access(path, os.X_OK))
    return found or next(downloaded, None)


@contextmanager
def served(app) -> Iterator[str]:
    """Serve an app on a free port of this machine; yields its address."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
