"""The studio: a page to draw on, built with Gradio and mounted in the server's own app.

Puts controls where they belong and tells `StudioEvents` what was pressed; what happens then is decided there.
Nothing is loaded from a network, nothing is reported to anybody.
"""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lens.errors import LensError
from lens.serve.api.generation import NO_HOOKS, Hooks
from lens.serve.engine.request import Drawer
from lens.serve.studio import html as html
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import StudioEvents
from lens.serve.studio.theme import HEAD, ON_LOAD, css, theme

if TYPE_CHECKING:
    from fastapi import FastAPI

NUM_THREADS = 256
"""A page that watches pictures being drawn takes one."""
Auth = Callable[[str, str], Awaitable[bool]]
"""Whether a name and a password, such as a caller's key, may use the page."""


def mount_studio(
    app: "FastAPI", drawer: Drawer, gallery: Gallery, hooks: Hooks = NO_HOOKS, auth: Auth | None = None
) -> "FastAPI":
    """Put the studio at `/` of an app; everything else has to be there already, as it takes what is left.

    Pictures are marked by the gallery; the other hooks are asked here.

    Raises: LensError where Gradio is not installed.
    """
    gr = gradio()
    page = studio(drawer, gallery, hooks)
    gallery.folder.mkdir(parents=True, exist_ok=True)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=auth,
        auth_message="Any name, and a key of this server as the password.",
        allowed_paths=[str(gallery.folder.absolute())],
        theme=theme(),
        css=css(),
        head=HEAD,
        js=ON_LOAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size="64mb",
    )


def studio(drawer: Drawer, gallery: Gallery, hooks: Hooks = NO_HOOKS) -> Any:
    """Return the page as Gradio's Blocks.

    Raises: LensError where Gradio is not installed.
    """
    gr = gradio()
    from lens.serve.studio.draw_page import draw_page
    from lens.serve.studio.pages import compare_page, gallery_page, grid_page

    events = StudioEvents(drawer, gallery, hooks)
    with gr.Blocks(
        title="Lens", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
    ) as page:
        gr.HTML(html.HEADER)
        with gr.Tabs(elem_id="pages"):
            with gr.Tab("Draw", id="draw"):
                drawing = draw_page(events)
            with gr.Tab("Gallery", id="gallery") as tab:
                shown = gallery_page(events, drawing)
            with gr.Tab("Compare", id="compare"):
                compare_page(events, shown)
            with gr.Tab("Grid", id="grid"):
                grid_page(events, drawing)
        gr.HTML(html.FOOT)
        listed = [shown.search, shown.only_favourites]
        for happens in (tab.select, page.load):
            happens(events.listing, listed, shown.items, show_progress="hidden", api_visibility="private")
        page.load(
            drawing.watch, drawing.kept, drawing.screen, show_progress="hidden", api_visibility="private"
        )
    page.max_threads = NUM_THREADS
    page.queue(default_concurrency_limit=None, max_size=256)
    return page


def gradio() -> Any:
    """Return the package, set to report nothing.

    Raises: LensError where it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        missing = "The studio needs the package gradio, which is not installed."
        remedy = 'Install Lens with the extra serve: pip install "lens-t2i[serve]".'
        raise LensError(f"{missing} {remedy}") from error
    return gradio
