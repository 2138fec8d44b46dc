"""The studio's other pages: gallery, compare, grid.

Says which controls there are and what pressing them calls; `studio_events` decides what happens.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from lens.serve.studio import html as html
from lens.serve.studio.contact_sheet import axis_names
from lens.serve.studio.controls import QUIET
from lens.serve.studio.draw_page import DrawPage
from lens.serve.studio.handlers import StudioEvents
from lens.serve.studio.theme import SELECT

SURE = "(sure, ...others) => [confirm('Delete this picture?'), ...others]"
GO_TO_DRAW = "() => document.querySelector('#pages button[role=tab]').click()"


class GalleryPage(NamedTuple):
    """What other parts of the page need of the gallery."""

    search: Any
    only_favourites: Any
    items: Any
    first: Any
    second: Any


def gallery_page(events: StudioEvents, drawing: DrawPage) -> GalleryPage:
    """Lay the page out and connect it."""
    import gradio as gr

    chosen, first, second = gr.State(None), gr.State(None), gr.State(None)
    with gr.Row():
        search = gr.Textbox(label="Search prompts", elem_id="search", scale=4)
        only = gr.Checkbox(False, label="Favourites only", elem_id="only-favourites", scale=1, min_width=140)
        pack = gr.Button("Pack as zip", elem_id="pack", scale=1, min_width=120)
        packed = gr.DownloadButton("Download the zip", visible=False, elem_id="packed", min_width=120)
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            items = gr.HTML(html.NOTHING_FOUND, js_on_load=SELECT, elem_id="gallery")
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
            sure = gr.Checkbox(False, visible=False)

    def show(name: str | None) -> list[Any]:
        kept = events.selected(name)
        return [name, "" if kept is None else html.picture(kept), gr.update(visible=kept is not None)]

    def pick(event: gr.EventData) -> list[Any]:
        return show(getattr(event, "name", None))

    def change(act: Any) -> Any:
        def changed(name: str | None, words: str, favourites: bool) -> list[Any]:
            act(name)
            return [*show(name), events.listing(words, favourites)]

        return changed

    def deleted(is_sure: bool, name: str | None, words: str, favourites: bool) -> list[Any]:
        events.delete(name if is_sure else None)
        return [*show(name), events.listing(words, favourites)]

    def restored(name: str | None, *given: Any) -> list[Any]:
        kept = events.selected(name)
        return drawing.restore(str(kept.path) if kept else None, *given)

    def zipped(words: str, favourites: bool) -> tuple[Any, str]:
        path = events.pack(words, favourites)
        if path is None:
            return gr.update(visible=False), html.status("There is no picture to pack.")
        return gr.update(value=str(path), visible=True), html.status("Packed.")

    listed, shown = [search, only], [chosen, detail, actions]
    search.change(events.listing, listed, items, trigger_mode="always_last", **QUIET)
    only.change(events.listing, listed, items, **QUIET)
    items.click(pick, None, shown, **QUIET)
    favour.click(change(events.toggle_favourite), [chosen, *listed], [*shown, items], **QUIET)
    delete.click(deleted, [sure, chosen, *listed], [*shown, items], js=SURE, **QUIET)
    done = restore.click(restored, [chosen, *drawing.controls.values()], drawing.restored, **QUIET)
    done.then(None, None, None, js=GO_TO_DRAW)
    for button, place, letter in ((as_first, first, "A"), (as_second, second, "B")):
        text = html.status(f"This is {letter}; see Compare.")
        button.click(lambda name, text=text: (name, text), chosen, [place, line], **QUIET)
    pack.click(zipped, listed, [packed, line], **QUIET)
    return GalleryPage(search, only, items, first, second)


def compare_page(events: StudioEvents, shown: GalleryPage) -> None:
    """Lay the page out and connect it."""
    import gradio as gr

    both = gr.HTML(html.status("Choose A and B in the gallery."), elem_id="compared")
    sheet = gr.DownloadButton("Download both as one picture", visible=False, elem_id="both-sheet")

    def compare(first: str | None, second: str | None) -> tuple[str, Any]:
        text, path = events.compare(first, second)
        return text, gr.update(value=str(path) if path else None, visible=path is not None)

    for place in (shown.first, shown.second):
        place.change(compare, [shown.first, shown.second], [both, sheet], **QUIET)


def grid_page(events: StudioEvents, drawing: DrawPage) -> None:
    """Lay the page out and connect it."""
    import gradio as gr

    names = axis_names(events.drawer.models(), events.drawer.loras())
    batch = gr.State("")
    gr.HTML(
        '<p class="lens-count">Draws what the first page says, with two of its settings varied. Values have'
        " commas between, prompts stand one a line; 1..4 is a range.</p>"
    )
    with gr.Row():
        x = gr.Dropdown(names, value="guidance", label="X, across", elem_id="x")
        x_values = gr.Textbox("1, 2, 4", label="X values", lines=2, elem_id="x-values")
        y = gr.Dropdown(names, value="steps", label="Y, down", elem_id="y")
        y_values = gr.Textbox("4, 20", label="Y values", lines=2, elem_id="y-values")
    with gr.Row():
        draw = gr.Button("Draw the grid", variant="primary", elem_id="draw-grid", scale=3)
        cancel = gr.Button("Cancel", elem_id="cancel-grid", scale=1)
    line = gr.HTML(html.status("Ready."), elem_id="grid-status")
    sheet = gr.Image(
        label="Sheet", type="filepath", format="png", interactive=False, buttons=["download", "fullscreen"],
        elem_id="sheet",
    )  # fmt: skip

    def on_draw(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
        values, axes = given[:-4], given[-4:]
        for name, text, path in events.grid(values, *axes, caller=f"studio {request.session_hash}"):
            yield [name, text, gr.skip() if path is None else str(path)]

    inputs = [*drawing.controls.values(), x, x_values, y, y_values]
    draw.click(on_draw, inputs, [batch, line, sheet], trigger_mode="once", **QUIET)
    cancel.click(events.cancel, batch, None, queue=False, **QUIET)
