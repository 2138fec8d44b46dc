"""The controls of the studio's first page, by the field of a form that they hold.

Lays them out; what they are used for is in `studio_draw`.
"""

import json
from typing import Any

from lens.core.resolution import ASPECT_RATIOS, buckets_for
from lens.errors import LensError
from lens.sampling.solvers import DEFAULT_SOLVER
from lens.serve.studio.form import (
    MAX_BROWSER_SEED,
    MAX_STUDIO_IMAGES,
    SOLVER_LABELS,
    base_resolutions,
    variant_labels,
)
from lens.serve.studio.handlers import StudioHandlers

QUIET_EVENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How events go: without a veil over the page, and for the page alone."""


def main_controls(handlers: StudioHandlers) -> dict[str, Any]:
    import gradio as gr

    models = handlers.engine.models()
    first = models[0]
    prompt = gr.Textbox(
        label="Prompt",
        lines=3,
        max_lines=10,
        placeholder="two red apples to the left of a fox, on a blue background",
        elem_id="prompt",
        autofocus=True,
    )
    if handlers.hooks.enhance_prompt is not None:
        _enhance_controls(handlers, prompt)
    ratio = gr.Radio(list(ASPECT_RATIOS), value="1:1", label="Shape", elem_id="ratios")
    size = gr.HTML(_size_line("1:1", first.base_resolution), elem_id="size-line")
    variant = gr.Radio(variant_labels(models), value=first.name, label="Variant", elem_id="variant")
    with gr.Row(elem_id="numbers"):
        base = gr.Dropdown(
            base_resolutions(first),
            value=first.base_resolution,
            label="Base size",
            elem_id="base",
            min_width=110,
        )
        count = gr.Number(
            1,
            label="Pictures",
            precision=0,
            minimum=1,
            maximum=MAX_STUDIO_IMAGES,
            elem_id="count",
            min_width=80,
        )
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=MAX_BROWSER_SEED, elem_id="seed", min_width=140
        )
        lock = gr.Checkbox(False, label="Lock seed", elem_id="lock", min_width=120)
    for control in (ratio, base):
        control.change(_size_line, [ratio, base], size, **QUIET_EVENT)
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


def _enhance_controls(handlers: StudioHandlers, prompt: Any) -> None:
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
        return gr.update(visible=True), text, *handlers.enhance(text)

    ask.click(enhance, prompt, [both, before, after, line], api_visibility="private")
    use.click(lambda text: (text, gr.update(visible=False)), after, [prompt, both], **QUIET_EVENT)
    keep.click(lambda: gr.update(visible=False), None, both, **QUIET_EVENT)


def advanced_controls(handlers: StudioHandlers) -> tuple[dict[str, Any], Any]:
    import gradio as gr

    first, loras = handlers.engine.models()[0], handlers.engine.loras()
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row():
            steps = gr.Slider(
                1, 100, first.default_steps, step=1, label="Steps", elem_id="steps", min_width=140
            )
            guidance = gr.Slider(
                0,
                20,
                first.default_guidance,
                step=0.1,
                label="Guidance",
                info="1 turns it off",
                elem_id="guidance",
                min_width=140,
            )
        negative = gr.Textbox(
            label="Negative prompt", info="Acts with guidance other than 1", lines=1, elem_id="negative"
        )
        with gr.Row():
            choices = [(label, name) for name, label in SOLVER_LABELS.items()]
            solver = gr.Dropdown(
                choices, value=DEFAULT_SOLVER, label="Solver", elem_id="solver", min_width=140
            )
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

    def update_weights(chosen: list[str], rows: list[list[Any]]) -> Any:
        current = {row[0]: row[1] for row in rows or () if row}
        return gr.update(value=[[name, current.get(name, 1.0)] for name in chosen], visible=bool(chosen))

    names.input(update_weights, [names, table], table, **QUIET_EVENT)
    advanced = {
        "steps": steps, "guidance": guidance, "negative_prompt": negative, "solver": solver, "size": size,
        "loras": table, "start": start, "strength": strength,
    }  # fmt: skip
    return advanced, names


def connect_variant_defaults(handlers: StudioHandlers, controls: dict[str, Any]) -> None:
    """Set what a variant draws with when somebody chooses it; in the browser, as Draw may be pressed next."""
    import gradio as gr

    def update_base(name: str, base: int) -> Any:
        model = handlers.model(name)
        bases = base_resolutions(model)
        return gr.update(choices=bases, value=base if base in bases else model.base_resolution)

    variant, base = controls["model"], controls["base_resolution"]
    defaults = json.dumps(
        {model.name: [model.default_steps, model.default_guidance] for model in handlers.engine.models()}
    )
    both = [controls["steps"], controls["guidance"]]
    variant.input(None, variant, both, js=f"(name) => ({defaults})[name]")
    variant.input(update_base, [variant, base], base, **QUIET_EVENT)
