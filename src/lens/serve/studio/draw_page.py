"""The studio's first page: the settings of an image on one side, the images on the other.

Connects the controls; `handlers` decides what happens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lens.serve.studio import html
from lens.serve.studio.controls import (
    QUIET_EVENT,
    advanced_controls,
    caller_name,
    connect_variant_defaults,
    main_controls,
)
from lens.serve.studio.form import base_resolutions
from lens.serve.studio.guide_panel import connect_warnings, guide_panel
from lens.serve.studio.handlers import FORM_FIELDS, BatchView, StudioHandlers

COPY_JS = "(code) => { navigator.clipboard?.writeText(code); }"


class DrawPage(NamedTuple):
    """Controls and events of the first page that other pages use."""

    controls: dict[str, Any]
    """By field, in the order of FORM_FIELDS."""
    browser_state: list[Any]
    """Values that the browser keeps over a reload: the inputs of `watch`."""
    batch_outputs: list[Any]
    """Outputs of `watch`."""
    watch: Any
    restore_outputs: list[Any]
    """Controls that `restore` sets."""
    restore: Any


def draw_page(handlers: StudioHandlers) -> DrawPage:
    """Lay out the page and connect its controls."""
    import gradio as gr

    batch = gr.BrowserState("", storage_key="lens-batch")
    stored_prompt = gr.BrowserState("", storage_key="lens-prompt")
    last_item = gr.State(None)
    with gr.Row(elem_id="draw-columns"):
        with gr.Column(scale=5, min_width=340):
            controls = main_controls(handlers)
            with gr.Row(elem_id="actions"):
                draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3)
                cancel = gr.Button("Cancel", elem_id="cancel", scale=1, min_width=90, interactive=False)
            advanced, lora_names = advanced_controls(handlers)
            warnings = controls["warnings"]
            controls |= advanced
            controls = {name: controls[name] for name in FORM_FIELDS}
            connect_warnings(handlers, controls, warnings)
            guide_panel(handlers, controls)
            dropped = gr.File(
                label="Drop an image made by Lens to restore its settings",
                file_types=[".png", ".jpg", ".jpeg", ".webp"],
                height=132,
                elem_id="restore",
            )
        with gr.Column(scale=7, min_width=340, elem_id="stage-column"):
            status = gr.HTML(html.status("Ready."), elem_id="status")
            stage = gr.HTML(html.EMPTY_STAGE, elem_id="stage")
            reuse, as_start, favourite = _last_image_actions()
            _code_controls(handlers, list(controls.values()))
    values = list(controls.values())
    batch_outputs = [batch, stage, status, controls["seed"], last_item, cancel]

    def updates(views: Iterator[BatchView]) -> Iterator[list[Any]]:
        for view in views:
            batch_id, tiles, newest = (
                value or gr.skip() for value in (view.batch_id, view.tiles_html, view.last_item)
            )
            yield [
                batch_id,
                tiles,
                view.status_html,
                view.seed,
                newest,
                gr.update(interactive=not view.is_finished),
            ]

    def on_draw(request: gr.Request, *field_values: Any) -> Iterator[list[Any]]:
        yield from updates(handlers.draw(field_values, caller_name(request)))

    def watch(name: str, text: str) -> Iterator[list[Any]]:
        yield [*(gr.skip() for _ in batch_outputs), text or gr.skip()]
        for update in updates(handlers.watch(name)):
            yield [*update, gr.skip()]

    def restore(path: str | None, *field_values: Any) -> list[Any]:
        changes, line = handlers.restore(Path(path), field_values) if path else ({}, html.status("Ready."))
        if "model" in changes:
            bases = base_resolutions(handlers.model(changes["model"]))
            changes["base_resolution"] = gr.update(choices=bases, value=changes["base_resolution"])
        names: Any = gr.skip()
        if "loras" in changes:
            names = [row[0] for row in changes["loras"]]
            changes["loras"] = gr.update(value=changes["loras"], visible=bool(names))
        for name in ("steps", "guidance"):  # a slider refuses values above its maximum, also restored ones
            if name in changes:
                maximum = max(controls[name].maximum, changes[name])
                changes[name] = gr.update(value=changes[name], maximum=maximum)
        return [*(changes.get(name, gr.skip()) for name in FORM_FIELDS), names, line]

    def toggle_favourite(name: str | None) -> str:
        handlers.toggle_favourite(name)
        item = handlers.find_item(name)
        return html.status("No image yet." if item is None else _favourite_message(item.is_favourite))

    def start_from(name: str | None) -> Any:
        item = handlers.find_item(name)
        return gr.skip() if item is None else str(item.path)

    restore_outputs = [*values, lora_names, status]
    connect_variant_defaults(handlers, controls)
    draw.click(lambda text: text, controls["prompt"], stored_prompt, queue=False, **QUIET_EVENT)
    draw.click(on_draw, values, batch_outputs, trigger_mode="once", **QUIET_EVENT)
    cancel.click(handlers.cancel, batch, None, queue=False, **QUIET_EVENT)
    dropped.upload(restore, [dropped, *values], restore_outputs, **QUIET_EVENT)
    reuse.click(lambda: True, None, controls["is_seed_locked"], queue=False, **QUIET_EVENT)
    as_start.click(start_from, last_item, controls["start"], **QUIET_EVENT)
    favourite.click(toggle_favourite, last_item, status, **QUIET_EVENT)
    return DrawPage(
        controls,
        [batch, stored_prompt],
        [*batch_outputs, controls["prompt"]],
        watch,
        restore_outputs,
        restore,
    )


def _favourite_message(is_favourite: bool) -> str:
    return "Added to favourites." if is_favourite else "Removed from favourites."


def _last_image_actions() -> tuple[Any, Any, Any]:
    import gradio as gr

    with gr.Row(elem_id="on-last"):
        reuse = gr.Button("Reuse this seed", size="sm", elem_id="reuse", min_width=110)
        as_start = gr.Button("Use as source", size="sm", elem_id="as-start", min_width=110)
        favourite = gr.Button("Favourite", size="sm", elem_id="favour-last", min_width=110)
    return reuse, as_start, favourite


def _code_controls(handlers: StudioHandlers, values: list[Any]) -> None:
    import gradio as gr

    with gr.Row():
        copy_curl = gr.Button("Copy as curl", size="sm", elem_id="copy-curl", min_width=110)
        copy_python = gr.Button("Copy as Python", size="sm", elem_id="copy-python", min_width=110)
    code_boxes = {
        "curl": gr.Code(language="shell", label="curl", visible=False, elem_id="curl", interactive=False),
        "python": gr.Code(
            language="python", label="Python", visible=False, elem_id="python", interactive=False
        ),
    }

    def code(index: int) -> Any:
        def fill(request: gr.Request, *field_values: Any) -> list[Any]:
            text = handlers.code_snippets(field_values, _base_url(request))[index]
            own, other = gr.update(value=text, visible=True), gr.update(visible=False)
            return [own, other] if index == 0 else [other, own]

        return fill

    for index, (button, name) in enumerate(((copy_curl, "curl"), (copy_python, "python"))):
        filled = button.click(code(index), values, list(code_boxes.values()), **QUIET_EVENT)
        filled.then(None, code_boxes[name], None, js=COPY_JS)


def _base_url(request: Any) -> str:
    return str(request.request.base_url)
