"""The studio's four pages as controls of Gradio: draw, gallery, compare, grid.

Says which controls there are and what pressing them calls; `studio_events` decides what happens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lens.core.geometry import ASPECT_RATIOS, buckets_for
from lens.errors import LensError
from lens.serve import studio_html as html
from lens.serve.sheets import axis_names
from lens.serve.studio_events import FIELDS, Screen, StudioEvents
from lens.serve.studio_form import MAX_COUNT, MAX_SEED, SOLVERS, bases_of, variant_labels
from lens.serve.studio_look import SELECT

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
COPY = "(code) => { navigator.clipboard?.writeText(code); }"
SURE = "(sure, ...others) => [confirm('Delete this picture?'), ...others]"
GO_TO_DRAW = "() => document.querySelector('#pages button[role=tab]').click()"


class DrawPage(NamedTuple):
    """What other parts of the page need of the first one."""

    controls: dict[str, Any]
    """By field, in the order of FIELDS."""
    kept: list[Any]
    """What the browser keeps over a reload, and `watch` goes on from."""
    screen: list[Any]
    """What `watch` tells of."""
    watch: Any
    restored: list[Any]
    """Controls that `restore` sets."""
    restore: Any


class GalleryPage(NamedTuple):
    """What other parts of the page need of the gallery."""

    search: Any
    only_favourites: Any
    items: Any
    first: Any
    second: Any


def draw_page(events: StudioEvents) -> DrawPage:
    """Lay the page out and connect it."""
    import gradio as gr

    batch = gr.BrowserState("", storage_key="lens-batch")
    words = gr.BrowserState("", storage_key="lens-prompt")
    last = gr.State(None)
    with gr.Row(elem_id="draw-columns"):
        with gr.Column(scale=5, min_width=340):
            controls = _main_controls(events)
            with gr.Row(elem_id="actions"):
                draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3)
                cancel = gr.Button("Cancel", elem_id="cancel", scale=1, min_width=90, interactive=False)
            more, lora_names = _advanced_controls(events)
            controls |= more
            controls = {name: controls[name] for name in FIELDS}
            dropped = gr.File(
                label="Drop a picture of Lens to restore its settings",
                file_types=[".png", ".jpg", ".jpeg", ".webp"],
                height=132,
                elem_id="restore",
            )
        with gr.Column(scale=7, min_width=340, elem_id="stage-column"):
            status = gr.HTML(html.status("Ready."), elem_id="status")
            stage = gr.HTML(html.EMPTY, elem_id="stage")
            reuse, as_start, favourite = _actions_on_last()
            _code(events, list(controls.values()))
    values = list(controls.values())
    screen = [batch, stage, status, controls["seed"], last, cancel]

    def updates(told: Iterator[Screen]) -> Iterator[list[Any]]:
        for one in told:
            name, tiles, newest = (value or gr.skip() for value in (one.batch, one.tiles, one.last))
            yield [name, tiles, one.status, one.seed, newest, gr.update(interactive=not one.is_over)]

    def on_draw(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
        yield from updates(events.draw(given, f"studio {request.session_hash}"))

    def watch(name: str, text: str) -> Iterator[list[Any]]:
        yield [*(gr.skip() for _ in screen), text or gr.skip()]
        for update in updates(events.watch(name)):
            yield [*update, gr.skip()]

    def restore(path: str | None, *given: Any) -> list[Any]:
        changes, line = events.restore(Path(path), given) if path else ({}, html.status("Ready."))
        if "model" in changes:
            bases = bases_of(events.model(changes["model"]))
            changes["base_resolution"] = gr.update(choices=bases, value=changes["base_resolution"])
        names: Any = gr.skip()
        if "loras" in changes:
            names = [row[0] for row in changes["loras"]]
            changes["loras"] = gr.update(value=changes["loras"], visible=bool(names))
        return [*(changes.get(name, gr.skip()) for name in FIELDS), names, line]

    def favour(name: str | None) -> str:
        events.toggle_favourite(name)
        kept = events.selected(name)
        return html.status("Nothing drawn yet." if kept is None else _favour_line(kept.is_favourite))

    def start_from(name: str | None) -> Any:
        kept = events.selected(name)
        return gr.skip() if kept is None else str(kept.path)

    restored = [*values, lora_names, status]
    _follow_variant(events, controls)
    draw.click(lambda text: text, controls["prompt"], words, queue=False, **QUIET)
    draw.click(on_draw, values, screen, trigger_mode="once", **QUIET)
    cancel.click(events.cancel, batch, None, queue=False, **QUIET)
    dropped.upload(restore, [dropped, *values], restored, **QUIET)
    reuse.click(lambda: True, None, controls["is_seed_locked"], queue=False, **QUIET)
    as_start.click(start_from, last, controls["start"], **QUIET)
    favourite.click(favour, last, status, **QUIET)
    return DrawPage(controls, [batch, words], [*screen, controls["prompt"]], watch, restored, restore)


def _favour_line(is_favourite: bool) -> str:
    return "A favourite now." if is_favourite else "No favourite any more."


def _main_controls(events: StudioEvents) -> dict[str, Any]:
    import gradio as gr

    models = events.drawer.models()
    first = models[0]
    prompt = gr.Textbox(
        label="Prompt",
        lines=3,
        max_lines=10,
        placeholder="two red apples to the left of a fox, on a blue background",
        elem_id="prompt",
        autofocus=True,
    )
    if events.hooks.enhance is not None:
        _enhancing(events, prompt)
    ratio = gr.Radio(list(ASPECT_RATIOS), value="1:1", label="Shape", elem_id="ratios")
    size = gr.HTML(_size_line("1:1", first.base_resolution), elem_id="size-line")
    variant = gr.Radio(variant_labels(models), value=first.name, label="Variant", elem_id="variant")
    with gr.Row(elem_id="numbers"):
        base = gr.Dropdown(
            bases_of(first), value=first.base_resolution, label="Base size", elem_id="base", min_width=110
        )
        count = gr.Number(
            1, label="Pictures", precision=0, minimum=1, maximum=MAX_COUNT, elem_id="count", min_width=80
        )
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed", min_width=140
        )
        lock = gr.Checkbox(False, label="Lock seed", elem_id="lock", min_width=120)
    for control in (ratio, base):
        control.change(_size_line, [ratio, base], size, **QUIET)
    return {
        "prompt": prompt, "aspect_ratio": ratio, "model": variant, "base_resolution": base, "seed": seed,
        "is_seed_locked": lock, "count": count,
    }  # fmt: skip


def _size_line(ratio: str, base: int) -> str:
    try:
        height, width = buckets_for(int(base))[ratio]
    except (LensError, KeyError, TypeError):
        return ""
    return f'<p class="lens-count">{width} x {height} pixels</p>'


def _enhancing(events: StudioEvents, prompt: Any) -> None:
    import gradio as gr

    ask = gr.Button("Enhance the prompt", size="sm", elem_id="enhance")
    with gr.Group(visible=False, elem_id="enhanced") as both:
        before = gr.Textbox(label="Before", interactive=False, lines=2, elem_id="before")
        after = gr.Textbox(label="After, yours to change", lines=4, elem_id="after")
        line = gr.HTML("")
        with gr.Row():
            use = gr.Button("Use it", variant="primary", size="sm", elem_id="use-enhanced")
            keep = gr.Button("Keep mine", size="sm")

    def enhance(text: str) -> tuple[Any, str, str, str]:
        return gr.update(visible=True), text, *events.enhanced(text)

    ask.click(enhance, prompt, [both, before, after, line], api_visibility="private")
    use.click(lambda text: (text, gr.update(visible=False)), after, [prompt, both], **QUIET)
    keep.click(lambda: gr.update(visible=False), None, both, **QUIET)


def _advanced_controls(events: StudioEvents) -> tuple[dict[str, Any], Any]:
    import gradio as gr

    first, loras = events.drawer.models()[0], events.drawer.loras()
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row():
            steps = gr.Slider(1, 100, first.steps, step=1, label="Steps", elem_id="steps", min_width=140)
            guidance = gr.Slider(
                0, 20, first.guidance, step=0.1, label="Guidance", info="1 turns it off", elem_id="guidance",
                min_width=140,
            )  # fmt: skip
        negative = gr.Textbox(
            label="Negative prompt", info="Acts with guidance other than 1", lines=1, elem_id="negative"
        )
        with gr.Row():
            choices = [(label, name) for name, label in SOLVERS.items()]
            solver = gr.Dropdown(choices, value="euler", label="Solver", elem_id="solver", min_width=140)
            size = gr.Textbox(
                label="Exact size", info="In place of shape and base", placeholder="192x128", elem_id="size",
                min_width=140,
            )  # fmt: skip
        names = gr.Dropdown(
            loras, value=[], multiselect=True, label="LoRAs", visible=bool(loras), elem_id="loras"
        )
        table = gr.Dataframe(
            [], headers=["LoRA", "weight"], datatype=["str", "number"], type="array", visible=False,
            label="Weights", interactive=True, static_columns=[0], column_count=2, elem_id="lora-weights",
        )  # fmt: skip
        gr.HTML('<p class="lens-count">A picture to start from; paint over what is to be drawn anew.</p>')
        start = gr.ImageEditor(
            label="Start from",
            type="pil",
            sources=("upload", "clipboard"),
            transforms=(),
            brush=gr.Brush(colors=["#ffffff"], color_mode="fixed"),
            layers=False,
            height=320,
            elem_id="start",
        )
        strength = gr.Slider(
            0.05, 1, 0.6, step=0.05, label="Strength", info="How far from that picture; 1 is free of it",
            elem_id="strength",
        )  # fmt: skip

    def weights(chosen: list[str], rows: list[list[Any]]) -> Any:
        known = {row[0]: row[1] for row in rows or () if row}
        return gr.update(value=[[name, known.get(name, 1.0)] for name in chosen], visible=bool(chosen))

    names.input(weights, [names, table], table, **QUIET)
    advanced = {
        "steps": steps, "guidance": guidance, "negative_prompt": negative, "solver": solver, "size": size,
        "loras": table, "start": start, "strength": strength,
    }  # fmt: skip
    return advanced, names


def _follow_variant(events: StudioEvents, controls: dict[str, Any]) -> None:
    import gradio as gr

    def chosen(name: str, base: int) -> tuple[int, float, Any]:
        model = events.model(name)
        bases = bases_of(model)
        base = base if base in bases else model.base_resolution
        return model.steps, model.guidance, gr.update(choices=bases, value=base)

    follows = [controls[name] for name in ("steps", "guidance", "base_resolution")]
    controls["model"].input(chosen, [controls["model"], controls["base_resolution"]], follows, **QUIET)


def _actions_on_last() -> tuple[Any, Any, Any]:
    import gradio as gr

    with gr.Row(elem_id="on-last"):
        reuse = gr.Button("Reuse this seed", size="sm", elem_id="reuse", min_width=110)
        as_start = gr.Button("Start from it", size="sm", elem_id="as-start", min_width=110)
        favourite = gr.Button("Favourite", size="sm", elem_id="favour-last", min_width=110)
    return reuse, as_start, favourite


def _code(events: StudioEvents, values: list[Any]) -> None:
    import gradio as gr

    with gr.Row():
        copy_curl = gr.Button("Copy as curl", size="sm", elem_id="copy-curl", min_width=110)
        copy_python = gr.Button("Copy as Python", size="sm", elem_id="copy-python", min_width=110)
    shown = {
        "curl": gr.Code(language="shell", label="curl", visible=False, elem_id="curl", interactive=False),
        "python": gr.Code(
            language="python", label="Python", visible=False, elem_id="python", interactive=False
        ),
    }

    def code(index: int) -> Any:
        def fill(request: gr.Request, *given: Any) -> list[Any]:
            text = events.code(given, _address(request))[index]
            own, other = gr.update(value=text, visible=True), gr.update(visible=False)
            return [own, other] if index == 0 else [other, own]

        return fill

    for index, (button, name) in enumerate(((copy_curl, "curl"), (copy_python, "python"))):
        filled = button.click(code(index), values, list(shown.values()), **QUIET)
        filled.then(None, shown[name], None, js=COPY)


def _address(request: Any) -> str:
    return str(request.request.base_url)


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
