"""The studio's first page: what is wanted on one side, the pictures on the other.

Says what pressing its controls calls; `studio_events` decides what happens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lens.serve.studio import html as html
from lens.serve.studio.controls import QUIET, advanced_controls, follow_variant, main_controls
from lens.serve.studio.form import bases_of
from lens.serve.studio.handlers import FIELDS, Screen, StudioEvents

COPY = "(code) => { navigator.clipboard?.writeText(code); }"


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


def draw_page(events: StudioEvents) -> DrawPage:
    """Lay the page out and connect it."""
    import gradio as gr

    batch = gr.BrowserState("", storage_key="lens-batch")
    words = gr.BrowserState("", storage_key="lens-prompt")
    last = gr.State(None)
    with gr.Row(elem_id="draw-columns"):
        with gr.Column(scale=5, min_width=340):
            controls = main_controls(events)
            with gr.Row(elem_id="actions"):
                draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3)
                cancel = gr.Button("Cancel", elem_id="cancel", scale=1, min_width=90, interactive=False)
            more, lora_names = advanced_controls(events)
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
    follow_variant(events, controls)
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
