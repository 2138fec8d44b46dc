"""A real Chromium for tests of pages, where there is one, and servers of the studio in a thread."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
DONE, PREVIEW = '.lens-tile[data-state="done"] img', '.lens-tile[data-state="preview"] img'
TIMEOUT_MS = 30_000
NOT_TESTED = (
    "NOT TESTED: the studio in a browser (typing, previews, cancelling, reloading, gallery, dropping an "
    "image, phone width, accessibility), as Chromium is not installed; `apt-get install chromium` "
    "installs it."
)
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


def app_of(folder, engine, enhance=None):
    from fastapi import FastAPI

    from lens.reasoner.language_model import ReasoningStoppedError
    from lens.reasoner.outcome import Reasoned
    from lens.serve.api.generation import GenerationHooks, GenerationService
    from lens.serve.settings.server import ServerSettings
    from lens.serve.studio.app import mount_studio
    from lens.serve.studio.gallery import Gallery

    def refine(prompt, *, seed=0, should_stop=None):
        assert enhance is not None and should_stop is not None
        while "endless" in prompt:
            if should_stop():
                raise ReasoningStoppedError("stopped")
            time.sleep(0.02)
        return Reasoned("refined", enhance(prompt), prompt)

    settings = ServerSettings.of({"state": str(folder.parent / "state")})
    hooks = GenerationHooks(find_reasoner=lambda _: refine if enhance else None)
    return mount_studio(FastAPI(), GenerationService(engine, settings, hooks), Gallery(folder))


def new_page(browser, address, **options):
    """Return a page of a new visitor, once the studio is there."""
    page = browser.new_context(**{"color_scheme": "light"} | options).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(address)
    page.wait_for_selector("#draw")
    page.wait_for_function("window.lensKeeps")
    return page


def is_elsewhere(url):
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def draw(page, prompt):
    page.fill("#prompt textarea", prompt)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f'{DONE}[alt="Image 1: {prompt}"]')


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()
