"""The studio: a page to generate images on, built with Gradio and mounted in the server's app.

Lays out the pages; `handlers` decides what happens. Nothing is loaded from a network, and nothing is reported
to anybody.
"""

import json
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lens.errors import MissingExtraError
from lens.serve.api.generation import GenerationService
from lens.serve.studio import html
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import StudioHandlers
from lens.serve.studio.theme import HEAD_HTML, ON_LOAD_JS, css, theme
from lens.serve.studio.uploads import TrimAfterUpload, UploadFolder

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lens.serve.studio.draw_page import DrawPage

NUM_STUDIO_THREADS = 256
"""A page that watches a batch takes one."""
AuthCheck = Callable[[str, str], Awaitable[bool]]
"""Whether a user name and a password, which is an API key, give access to the page."""


def mount_studio(
    app: "FastAPI", service: GenerationService, gallery: Gallery, auth: AuthCheck | None = None
) -> "FastAPI":
    """Mount the studio at `/` of an app, which must have all other routes already.

    Raises: MissingExtraError.
    """
    gr = import_gradio()
    limits = service.settings.limits
    uploads = UploadFolder(gallery.folder.parent / "studio-uploads", limits.studio_bytes)
    uploads.clear()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.path.absolute())  # read when pages and apps are created
    page = create_studio(service, gallery, Gallery(uploads.path))
    gallery.folder.mkdir(parents=True, exist_ok=True)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=auth,
        auth_message="Enter any user name, and an API key of this server as the password.",
        allowed_paths=[str(gallery.folder.absolute())],
        theme=theme(),
        css=css(),
        head=HEAD_HTML,
        js=ON_LOAD_JS,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=limits.body_bytes,
    )
    mount: Any = app.router.routes[-1]
    mount.app.add_middleware(TrimAfterUpload, folder=uploads)
    return app


def create_studio(service: GenerationService, gallery: Gallery, drafts: Gallery | None = None) -> Any:
    """Return the page as Gradio's Blocks; source images that nobody has drawn from yet are in `drafts`.

    Raises: MissingExtraError.
    """
    gr = import_gradio()
    from lens.serve.studio.controls import BROWSER_SECRET, QUIET_EVENT
    from lens.serve.studio.draw_page import draw_page
    from lens.serve.studio.pages import LISTS_IMAGES, compare_page, gallery_page, grid_page

    handlers = StudioHandlers(service, gallery, drafts)
    with gr.Blocks(
        title="Lens", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)
    ) as page:
        gr.HTML(html.HEADER)
        # Outside of the pages: what is in a page exists only once that page was shown.
        compared = [
            gr.BrowserState(None, storage_key=f"lens-{letter}", secret=BROWSER_SECRET) for letter in "ab"
        ]
        with gr.Tabs(elem_id="pages"):
            with gr.Tab("Draw", id="draw"):
                draw_tab = draw_page(handlers)
            with gr.Tab("Gallery", id="gallery") as tab:
                gallery_tab = gallery_page(handlers, draw_tab, compared)
            with gr.Tab("Compare", id="compare") as compare_tab:
                triggers = [compare_tab.select, page.load, *(place.change for place in compared)]
                compare_page(handlers, compared, triggers)
            with gr.Tab("Grid", id="grid"):
                grid_controls = grid_page(handlers, draw_tab)
        gr.HTML(html.FOOTER)
        for trigger in (tab.select, page.load):
            trigger(
                gallery_tab.search, gallery_tab.search_inputs, gallery_tab.search_outputs, **LISTS_IMAGES
            )
        page.load(draw_tab.watch, draw_tab.batch, draw_tab.batch_outputs, **QUIET_EVENT)
        _keep_settings(page, draw_tab, grid_controls)
    page.max_threads = NUM_STUDIO_THREADS
    page.queue(default_concurrency_limit=None, max_size=256)
    return page


def _keep_settings(page: Any, draw_tab: "DrawPage", others: dict[str, Any]) -> None:
    """Let the browser keep every setting over a reload: at each change, without the server."""
    import gradio as gr

    from lens.serve.studio.controls import BROWSER_SECRET, QUIET_EVENT

    kept = gr.BrowserState({}, storage_key="lens-settings", secret=BROWSER_SECRET)
    controls = {name: control for name, control in draw_tab.controls.items() if name != "start"} | others

    def restore(by_field: Any, source: Any) -> list[Any]:
        by_field = by_field if isinstance(by_field, dict) else {}
        values = [by_field[name] if isinstance(by_field.get(name), str) else gr.skip() for name in others]
        return [*draw_tab.kept(by_field, source), *values]

    outputs = [*draw_tab.restore_outputs, *others.values()]
    restored = page.load(restore, [kept, draw_tab.kept_source], outputs, **QUIET_EVENT)
    restored.then(None, None, None, js="() => { window.lensKeeps = true; }")
    # Before that, controls have their first values, which must not replace those that are kept.
    keep_js = (
        "(...values) => window.lensKeeps"
        f" ? Object.fromEntries({json.dumps(list(controls))}.map((name, index) => [name, values[index]]))"
        ' : {__type__: "update"}'
    )
    # A model sets other controls after its own change; those that are not shown tell of no change.
    triggers = [control.change for control in controls.values()] + [controls["model"].input]
    gr.on(
        triggers, None, list(controls.values()), kept,
        js=keep_js, show_progress="hidden", trigger_mode="multiple",
    )  # fmt: skip


def import_gradio() -> Any:
    """Return the gradio package, with its telemetry off.

    Raises: MissingExtraError.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("The studio", "gradio", "serve") from error
    return gradio
