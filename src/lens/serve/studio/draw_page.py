"""The studio's first page: the settings of an image on one side, the images on the other.

Connects the controls; `handlers` decides what happens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lens.errors import LensError
from lens.serve.studio import html
from lens.serve.studio.controls import (
    BROWSER_SECRET,
    QUIET_EVENT,
    advanced_controls,
    caller_name,
    connect_enhance,
    connect_variant_defaults,
    main_controls,
    prompt_controls,
    sent,
    unchecked,
)
from lens.serve.studio.form import base_resolutions
from lens.serve.studio.guide_panel import connect_warnings, guide_panel
from lens.serve.studio.handlers import FORM_FIELDS, BatchView, StudioHandlers
from lens.serve.studio.theme import ACTIONS_JS

COPY_JS = "(code) => { navigator.clipboard?.writeText(code); }"


class DrawPage(NamedTuple):
    """Controls and events of the first page that other pages use."""

    controls: dict[str, Any]
    """By field, in the order of FORM_FIELDS."""
    batch: Any
    """Name of the last batch: the input of `watch`."""
    batch_outputs: list[Any]
    """Outputs of `watch`."""
    watch: Any
    restore_outputs: list[Any]
    """Controls that `restore` and `kept` set."""
    restore: Any
    dropped: Any
    """The control that images are dropped on."""
    kept_source: Any
    """What the browser keeps of the source image; it keeps the other controls by their fields."""
    kept: Any
    """Returns what the browser kept, by fields, and of the source image."""
    start_from: Any
    """Makes the image of an event the source image."""
    start_outputs: list[Any]


def draw_page(handlers: StudioHandlers) -> DrawPage:
    """Lay out the page and connect its controls."""
    import gradio as gr

    batch = gr.BrowserState("", storage_key="lens-batch", secret=BROWSER_SECRET)
    with gr.Row(elem_id="draw-columns"):
        with gr.Column(scale=5, min_width=340):
            controls = prompt_controls(handlers)
            with gr.Column(elem_id="actions"):  # early, so that two tabs lead from the prompt to Draw
                with gr.Row(elem_id="buttons"):
                    draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3)
                    cancel = gr.Button(
                        "Cancel", elem_id="cancel", scale=1, min_width=90, interactive=False
                    )
                status = gr.HTML(html.status("Ready."), elem_id="status")
            controls |= main_controls(handlers)
            advanced = advanced_controls(handlers)
            warnings, enhance = controls["warnings"], controls["enhance"]
            controls |= advanced.by_field
            controls = {name: unchecked(controls[name]) for name in FORM_FIELDS}
            unchecked(advanced.lora_names)
            connect_warnings(handlers, controls, warnings)
            connect_enhance(handlers, controls["prompt"], controls["model"], enhance)
            guide_panel(handlers, controls)
            dropped = gr.File(
                label="Drop an image of Lens, AUTOMATIC1111, ComfyUI or InvokeAI to restore its settings",
                file_types=[".png", ".jpg", ".jpeg", ".webp"],
                height=132,
                elem_id="restore",
            )
        with gr.Column(scale=7, min_width=340, elem_id="stage-column"):
            stage = gr.HTML(html.EMPTY_STAGE, js_on_load=ACTIONS_JS, elem_id="stage")
            _code_controls(handlers, list(controls.values()))
    values = list(controls.values())
    batch_outputs = [batch, stage, status, controls["seed"], cancel]

    def updates(views: Iterator[BatchView]) -> Iterator[list[Any]]:
        for view in views:
            shown = [value or gr.skip() for value in (view.batch_id, view.tiles_html)]
            yield [*shown, view.status_html, view.seed, gr.update(interactive=not view.is_finished)]

    def on_draw(request: gr.Request, *field_values: Any) -> Iterator[list[Any]]:
        yield from updates(handlers.draw(field_values, caller_name(request)))

    def watch(name: str) -> Iterator[list[Any]]:
        yield [gr.skip()] * len(batch_outputs)  # without a batch: what yields nothing empties its outputs
        for batch_id, tiles, line, _, is_running in updates(handlers.watch(name)):
            yield [batch_id, tiles, line, gr.skip(), is_running]  # the browser keeps the seed

    def control_updates(changes: dict[str, Any]) -> list[Any]:
        """Return what sets the controls to values by field, and the list of LoRAs."""
        if "model" in changes:
            bases = base_resolutions(handlers.model(changes["model"]))
            base = changes.get("base_resolution")
            changes["base_resolution"] = gr.update(choices=bases, **({} if base is None else {"value": base}))
        names: Any = gr.skip()
        if "loras" in changes:
            names = [row[0] for row in changes["loras"]]
            changes["loras"] = gr.update(value=changes["loras"], visible=bool(names))
        for name in ("steps", "guidance"):  # a slider refuses values above its maximum, also restored ones
            if name in changes:
                maximum = max(controls[name].maximum, changes[name])
                changes[name] = gr.update(value=changes[name], maximum=maximum)
        return [*(changes.get(name, gr.skip()) for name in FORM_FIELDS), names]

    def restore(path: str | None, *field_values: Any) -> list[Any]:
        changes, line = handlers.restore(Path(path), field_values) if path else ({}, html.status("Ready."))
        return [*control_updates(changes), line]

    def kept(by_field: Any, source: Any) -> list[Any]:
        return [*control_updates(handlers.kept_values(by_field, source)), gr.skip()]

    def start_from(event: gr.EventData) -> list[Any]:
        item = handlers.in_gallery.find_item(sent(event, "name"))
        if item is None:
            line = html.error_line(LensError("The image is no longer in the gallery."))
            return [gr.skip(), line, gr.skip()]
        line = "The image is the source image now; Advanced has its strength and a brush for a mask."
        return [str(item.path), html.status(line), gr.update(open=True)]

    def on_tile(event: gr.EventData, batch_id: str) -> list[Any]:
        action, name = sent(event, "action"), sent(event, "name")
        tiles, seed, is_locked = gr.skip(), gr.skip(), gr.skip()
        start: list[Any] = [gr.skip(), gr.skip(), gr.skip()]
        if action == "favourite":
            shown, start[1] = handlers.toggle_favourite(str(name), batch_id)
            tiles = shown or tiles
        elif action == "seed":
            seed, is_locked = int(sent(event, "seed")), True
            start[1] = html.status(f"Seed {seed} is locked.")
        elif action == "source":
            start = start_from(event)
        return [tiles, seed, is_locked, *start]

    def on_larger(request: gr.Request, event: gr.EventData, strength: Any) -> Iterator[list[Any]]:
        views = handlers.draw_larger(str(sent(event, "name")), strength, caller_name(request))
        for batch_id, tiles, line, _, is_running in updates(views):
            yield [batch_id, tiles, line, gr.skip(), is_running]

    restore_outputs = [*values, advanced.lora_names, status]
    start_outputs = [controls["start"], status, advanced.panel]
    connect_variant_defaults(handlers, controls)
    draw.click(on_draw, values, batch_outputs, trigger_mode="once", **QUIET_EVENT)
    cancel.click(handlers.cancel, batch, None, queue=False, **QUIET_EVENT)
    dropped.upload(restore, [dropped, *values], restore_outputs, **QUIET_EVENT)
    on_tile_outputs = [stage, controls["seed"], controls["is_seed_locked"], *start_outputs]
    larger_inputs = [controls["upscale_strength"]]
    stage.larger(on_larger, larger_inputs, batch_outputs, trigger_mode="once", **QUIET_EVENT)
    stage.click(on_tile, batch, on_tile_outputs, trigger_mode="multiple", **QUIET_EVENT)
    return DrawPage(
        controls, batch, batch_outputs, watch, restore_outputs, restore, dropped, advanced.kept_source,
        kept, start_from, start_outputs,
    )  # fmt: skip


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
