"""The studio's other pages: gallery, compare and grid.

Lays out the controls and connects them; `handlers` decides what happens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lens.serve.studio import gallery_html, html
from lens.serve.studio.contact_sheet import MAX_GRID_CELLS, axis_names
from lens.serve.studio.controls import QUIET_EVENT, caller_name, sent, unchecked
from lens.serve.studio.draw_page import DrawPage
from lens.serve.studio.gallery_handlers import GallerySearch, GalleryView
from lens.serve.studio.handlers import StudioHandlers

OPEN_DRAW_PAGE_JS = "() => { lensOpen('draw'); scrollTo(0, 0); }"
LIST_JS = "lensActions(element, trigger); lensGallery(element, trigger, watch);"
VIEWER_JS = "lensViewer(element, trigger, props, watch); // sends 'restore' and 'source', besides click"

LISTS_IMAGES: dict[str, Any] = {"concurrency_id": "gallery", "concurrency_limit": 1, **QUIET_EVENT}
"""Options of events that fill the list: one after the other, so that the newest answer is the last."""


class GalleryPage(NamedTuple):
    """Controls of the gallery that other pages use."""

    search_inputs: list[Any]
    search_outputs: list[Any]
    search: Any
    """Fills the outputs for the inputs."""


def gallery_page(handlers: StudioHandlers, draw_tab: DrawPage, compared: Sequence[Any]) -> GalleryPage:
    """Lay out the page and connect its controls; `compared` keeps the names of the images A and B."""
    import gradio as gr

    in_gallery = handlers.in_gallery
    with gr.Row(elem_id="gallery-bar"):
        words = gr.Textbox(label="Search prompts", elem_id="search", scale=4)
        only_favourites = gr.Checkbox(
            False, label="Favourites only", elem_id="only-favourites", scale=1, min_width=140
        )
        export = gr.Button("Export as ZIP", elem_id="pack", scale=1, min_width=120, interactive=False)
        download = gr.DownloadButton("Download ZIP", visible=False, elem_id="packed", min_width=120)
    line = gr.HTML("", elem_id="gallery-line")
    listing = gr.HTML(gallery_html.NOTHING_FOUND, js_on_load=LIST_JS, elem_id="gallery")
    viewer = gr.HTML("", js_on_load=VIEWER_JS, elem_id="detail")

    def search(words: str, only_favourites: bool) -> list[Any]:
        found, is_any = in_gallery.search(GallerySearch(words or "", only_favourites))
        return [found, gr.update(interactive=is_any)]

    def sent_search(event: Any, words: str, only_favourites: bool) -> GallerySearch:
        return GallerySearch(words or "", only_favourites, int(sent(event, "shown") or 1))

    def shown(view: GalleryView) -> list[Any]:
        texts = (view.list_html, view.viewer_html, view.line_html)
        file = gr.skip() if view.zip_path is None else gr.update(value=str(view.zip_path), visible=True)
        return [*(gr.skip() if text is None else text for text in texts), file]

    def act(event: gr.EventData, words: str, only_favourites: bool) -> list[Any]:
        search, action = sent_search(event, words, only_favourites), sent(event, "action")
        if action == "open":
            return shown(in_gallery.act_on_one("open", sent(event, "name"), search))
        if action == "page":
            search = search._replace(page=int(sent(event, "page") or 1))
        return shown(in_gallery.act(action, [str(name) for name in sent(event, "names") or ()], search))

    def act_on_one(event: gr.EventData, words: str, only_favourites: bool) -> list[Any]:
        action, name = sent(event, "action"), sent(event, "name")
        view = in_gallery.act_on_one(action, name, sent_search(event, words, only_favourites))
        chosen = [name if action == letter else gr.skip() for letter in ("compare-a", "compare-b")]
        return [*shown(view), *chosen]

    def restore(event: gr.EventData, *field_values: Any) -> list[Any]:
        item = in_gallery.find_item(sent(event, "name"))
        return draw_tab.restore(str(item.path) if item else None, *field_values)

    def export_zip(words: str, only_favourites: bool) -> tuple[Any, str]:
        path, text = in_gallery.export_zip(GallerySearch(words or "", only_favourites))
        return gr.update(value=str(path) if path else None, visible=path is not None), text

    search_inputs, search_outputs = [words, only_favourites], [listing, export]
    outputs = [listing, viewer, line, download]
    # By default a click is lost while the one before it is handled.
    each_click: dict[str, Any] = {"trigger_mode": "multiple", **QUIET_EVENT}
    words.change(search, search_inputs, search_outputs, trigger_mode="always_last", **LISTS_IMAGES)
    only_favourites.change(search, search_inputs, search_outputs, trigger_mode="always_last", **LISTS_IMAGES)
    listing.click(act, search_inputs, outputs, **each_click | LISTS_IMAGES)
    viewer.click(act_on_one, search_inputs, [*outputs, *compared], **each_click | LISTS_IMAGES)
    values = list(draw_tab.controls.values())
    restored = viewer.restore(restore, values, draw_tab.restore_outputs, **each_click)
    restored.then(None, None, None, js=OPEN_DRAW_PAGE_JS)
    started = viewer.source(draw_tab.start_from, None, draw_tab.start_outputs, **each_click)
    started.then(None, None, None, js=OPEN_DRAW_PAGE_JS)
    export.click(export_zip, search_inputs, [download, line], **QUIET_EVENT)
    return GalleryPage(search_inputs, search_outputs, search)


def compare_page(handlers: StudioHandlers, compared: Sequence[Any], triggers: Sequence[Any]) -> None:
    """Lay out the page and connect its controls; the images are compared at each trigger."""
    import gradio as gr

    both = gr.HTML(handlers.in_gallery.compare(None, None)[0], elem_id="compared")
    sheet = gr.DownloadButton("Download both as one image", visible=False, elem_id="both-sheet")

    def compare(first: str | None, second: str | None) -> tuple[str, Any]:
        text, path = handlers.in_gallery.compare(first, second)
        return text, gr.update(value=str(path) if path else None, visible=path is not None)

    for trigger in triggers:
        trigger(compare, list(compared), [both, sheet], **QUIET_EVENT)


def grid_page(handlers: StudioHandlers, draw_tab: DrawPage) -> dict[str, Any]:
    """Lay out the page and connect its controls; return those that a reload keeps, by name."""
    import gradio as gr

    names = axis_names(handlers.engine.models(), handlers.engine.loras())
    batch = gr.State("")
    gr.HTML(
        '<p class="lens-count">Draws one image for each pair of values; the Draw page has the other settings.'
        f" Separate values by commas, prompts by line breaks; 1..4 is a range. At most {MAX_GRID_CELLS}"
        " images.</p>"
    )
    with gr.Row():
        x = unchecked(gr.Dropdown(names, value="guidance", label="X axis (columns)", elem_id="x"))
        x_values = gr.Textbox("1, 2, 4", label="X values", lines=2, elem_id="x-values")
        y = unchecked(gr.Dropdown(names, value="steps", label="Y axis (rows)", elem_id="y"))
        y_values = gr.Textbox("4, 20", label="Y values", lines=2, elem_id="y-values")
    with gr.Column(elem_id="grid-actions"):
        with gr.Row():
            draw = gr.Button("Draw grid", variant="primary", elem_id="draw-grid", scale=3)
            cancel = gr.Button("Cancel", elem_id="cancel-grid", scale=1, interactive=False)
        line = gr.HTML(html.status("Ready."), elem_id="grid-status")
    sheet = gr.Image(
        label="Contact sheet", type="filepath", format="png", interactive=False,
        buttons=["download", "fullscreen"], elem_id="sheet", visible=False,
    )  # fmt: skip

    def on_draw(request: gr.Request, *field_values: Any) -> Iterator[list[Any]]:
        values, axes = field_values[:-4], field_values[-4:]
        for name, text, path in handlers.draw_grid(values, *axes, caller=caller_name(request)):
            image = gr.skip() if path is None else gr.update(value=str(path), visible=True)
            yield [name, text, image, gr.update(interactive=bool(name))]
        yield [gr.skip(), gr.skip(), gr.skip(), gr.update(interactive=False)]

    inputs = [*draw_tab.controls.values(), x, x_values, y, y_values]
    draw.click(on_draw, inputs, [batch, line, sheet, cancel], trigger_mode="once", **QUIET_EVENT)
    cancel.click(handlers.cancel, batch, None, queue=False, **QUIET_EVENT)
    axes = [x, x_values, y, y_values]

    def restore_axes(path: str | None) -> list[Any]:
        texts = handlers.restored_axes(Path(path)) if path else []
        return texts if len(texts) == len(axes) else [gr.skip()] * len(axes)

    draw_tab.dropped.upload(restore_axes, draw_tab.dropped, axes, **QUIET_EVENT)
    return {"x": x, "x_values": x_values, "y": y, "y_values": y_values}
