"""The studio's other pages: gallery, compare and grid.

Lays out the controls and connects them; `handlers` decides what happens.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from lens.serve.studio import html
from lens.serve.studio.contact_sheet import axis_names
from lens.serve.studio.controls import QUIET_EVENT, caller_name
from lens.serve.studio.draw_page import DrawPage
from lens.serve.studio.handlers import StudioHandlers
from lens.serve.studio.theme import SELECT_JS

CONFIRM_DELETE_JS = "(isConfirmed, ...others) => [confirm('Delete this image?'), ...others]"
OPEN_DRAW_TAB_JS = "() => document.querySelector('#pages button[role=tab]').click()"


class GalleryPage(NamedTuple):
    """Controls of the gallery that other pages use."""

    search: Any
    only_favourites: Any
    items: Any
    first: Any
    second: Any


def gallery_page(handlers: StudioHandlers, draw_tab: DrawPage) -> GalleryPage:
    """Lay out the page and connect its controls."""
    import gradio as gr

    selected, first, second = gr.State(None), gr.State(None), gr.State(None)
    with gr.Row():
        search = gr.Textbox(label="Search prompts", elem_id="search", scale=4)
        only_favourites = gr.Checkbox(
            False, label="Favourites only", elem_id="only-favourites", scale=1, min_width=140
        )
        export = gr.Button("Export as ZIP", elem_id="pack", scale=1, min_width=120)
        download = gr.DownloadButton("Download ZIP", visible=False, elem_id="packed", min_width=120)
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            items = gr.HTML(html.NOTHING_FOUND, js_on_load=SELECT_JS, elem_id="gallery")
        with gr.Column(scale=4, min_width=300):
            detail = gr.HTML("", elem_id="detail")
            with gr.Group(visible=False, elem_id="on-chosen") as actions:
                with gr.Row():
                    restore = gr.Button(
                        "Restore settings", size="sm", elem_id="restore-chosen", min_width=100
                    )
                    favour = gr.Button("Favourite", size="sm", elem_id="favour-chosen", min_width=100)
                    delete = gr.Button("Delete", variant="stop", size="sm", elem_id="delete", min_width=100)
                with gr.Row():
                    as_first = gr.Button("Compare as A", size="sm", elem_id="as-a", min_width=100)
                    as_second = gr.Button("Compare as B", size="sm", elem_id="as-b", min_width=100)
            line = gr.HTML("")
            is_confirmed = gr.Checkbox(False, visible=False)

    def show(name: str | None) -> list[Any]:
        item = handlers.find_item(name)
        return [name, "" if item is None else html.image_detail(item), gr.update(visible=item is not None)]

    def pick(event: gr.EventData) -> list[Any]:
        return show(getattr(event, "name", None))

    def with_refresh(act: Any) -> Any:
        def act_and_refresh(name: str | None, words: str, favourites: bool) -> list[Any]:
            act(name)
            return [*show(name), handlers.search_gallery(words, favourites)]

        return act_and_refresh

    def delete_item(is_confirmed: bool, name: str | None, words: str, favourites: bool) -> list[Any]:
        handlers.delete(name if is_confirmed else None)
        return [*show(name), handlers.search_gallery(words, favourites)]

    def restore_item(name: str | None, *field_values: Any) -> list[Any]:
        item = handlers.find_item(name)
        return draw_tab.restore(str(item.path) if item else None, *field_values)

    def export_zip(words: str, favourites: bool) -> tuple[Any, str]:
        path = handlers.export_zip(words, favourites)
        if path is None:
            return gr.update(visible=False), html.status("There are no images to export.")
        return gr.update(value=str(path), visible=True), html.status("The ZIP file is ready.")

    search_inputs, detail_outputs = [search, only_favourites], [selected, detail, actions]
    search.change(handlers.search_gallery, search_inputs, items, trigger_mode="always_last", **QUIET_EVENT)
    only_favourites.change(handlers.search_gallery, search_inputs, items, **QUIET_EVENT)
    items.click(pick, None, detail_outputs, **QUIET_EVENT)
    favour.click(
        with_refresh(handlers.toggle_favourite),
        [selected, *search_inputs],
        [*detail_outputs, items],
        **QUIET_EVENT,
    )
    delete.click(
        delete_item,
        [is_confirmed, selected, *search_inputs],
        [*detail_outputs, items],
        js=CONFIRM_DELETE_JS,
        trigger_mode="multiple",  # by default a click is lost while the one before it is handled
        **QUIET_EVENT,
    )
    restore_event = restore.click(
        restore_item, [selected, *draw_tab.controls.values()], draw_tab.restore_outputs, **QUIET_EVENT
    )
    restore_event.then(None, None, None, js=OPEN_DRAW_TAB_JS)
    for button, place, letter in ((as_first, first, "A"), (as_second, second, "B")):
        text = html.status(f"Selected as image {letter}; see the Compare tab.")
        button.click(lambda name, text=text: (name, text), selected, [place, line], **QUIET_EVENT)
    export.click(export_zip, search_inputs, [download, line], **QUIET_EVENT)
    return GalleryPage(search, only_favourites, items, first, second)


def compare_page(handlers: StudioHandlers, gallery_tab: GalleryPage) -> None:
    """Lay out the page and connect its controls."""
    import gradio as gr

    both = gr.HTML(html.status("Select A and B in the gallery."), elem_id="compared")
    sheet = gr.DownloadButton("Download both as one image", visible=False, elem_id="both-sheet")

    def compare(first: str | None, second: str | None) -> tuple[str, Any]:
        text, path = handlers.compare(first, second)
        return text, gr.update(value=str(path) if path else None, visible=path is not None)

    for place in (gallery_tab.first, gallery_tab.second):
        place.change(compare, [gallery_tab.first, gallery_tab.second], [both, sheet], **QUIET_EVENT)


def grid_page(handlers: StudioHandlers, draw_tab: DrawPage) -> None:
    """Lay out the page and connect its controls."""
    import gradio as gr

    names = axis_names(handlers.engine.models(), handlers.engine.loras())
    batch = gr.State("")
    gr.HTML(
        '<p class="lens-count">Draws one image for each pair of values; the Draw page has the other settings.'
        " Separate values by commas, prompts by line breaks; 1..4 is a range.</p>"
    )
    with gr.Row():
        x = gr.Dropdown(names, value="guidance", label="X axis (columns)", elem_id="x")
        x_values = gr.Textbox("1, 2, 4", label="X values", lines=2, elem_id="x-values")
        y = gr.Dropdown(names, value="steps", label="Y axis (rows)", elem_id="y")
        y_values = gr.Textbox("4, 20", label="Y values", lines=2, elem_id="y-values")
    with gr.Row():
        draw = gr.Button("Draw grid", variant="primary", elem_id="draw-grid", scale=3)
        cancel = gr.Button("Cancel", elem_id="cancel-grid", scale=1)
    line = gr.HTML(html.status("Ready."), elem_id="grid-status")
    sheet = gr.Image(
        label="Contact sheet", type="filepath", format="png", interactive=False,
        buttons=["download", "fullscreen"], elem_id="sheet",
    )  # fmt: skip

    def on_draw(request: gr.Request, *field_values: Any) -> Iterator[list[Any]]:
        values, axes = field_values[:-4], field_values[-4:]
        for name, text, path in handlers.draw_grid(values, *axes, caller=caller_name(request)):
            yield [name, text, gr.skip() if path is None else str(path)]

    inputs = [*draw_tab.controls.values(), x, x_values, y, y_values]
    draw.click(on_draw, inputs, [batch, line, sheet], trigger_mode="once", **QUIET_EVENT)
    cancel.click(handlers.cancel, batch, None, queue=False, **QUIET_EVENT)
