"""The controls of the studio's first page, by the field of a form that they hold.

Their choices and limits come from the server's settings, the models, the solver table and the named sizes.
"""

import json
from typing import Any

from lens.core.noise import MAX_SEED, RANDOM_SEED
from lens.core.resolution import ASPECT_RATIOS, buckets_for
from lens.errors import LensError
from lens.sampling.defaults import default_strength
from lens.sampling.solvers import DEFAULT_SOLVER, SOLVERS
from lens.serve.api.schemas import MAX_IMAGES_PER_REQUEST
from lens.serve.studio.form import base_resolutions, variant_labels
from lens.serve.studio.handlers import StudioHandlers
from lens.serve.studio.uploads import bound_editor

QUIET_EVENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of events that show no overlay and are not part of the public API."""


SOURCE_IMAGE_HELP = (
    '<p class="lens-count">Source image: paint a mask to inpaint that area. Without a mask, all of it is'
    " generated again.</p>"
)


def main_controls(handlers: StudioHandlers) -> dict[str, Any]:
    """Lay out the controls that are always visible; return them by field, and the line of warnings."""
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
    warnings = gr.HTML("", elem_id="prompt-warnings")
    if handlers.service.can_enhance:
        _enhance_controls(handlers, prompt)
    ratio = gr.Radio(list(ASPECT_RATIOS), value="1:1", label="Aspect ratio", elem_id="ratios")
    size = gr.HTML(_size_line("1:1", first.base_resolution), elem_id="size-line")
    variant = gr.Radio(variant_labels(models), value=first.name, label="Model", elem_id="variant")
    with gr.Row(elem_id="numbers"):
        base = gr.Dropdown(
            base_resolutions(first), value=first.base_resolution, label="Base resolution", elem_id="base",
            scale=0, min_width=134,
        )  # fmt: skip
        count = gr.Number(
            1, label="Images", precision=0, minimum=1, maximum=MAX_IMAGES_PER_REQUEST, elem_id="count",
            scale=0, min_width=84,
        )  # fmt: skip
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=RANDOM_SEED, maximum=MAX_SEED, elem_id="seed",
            scale=1, min_width=140,
        )  # fmt: skip
        lock = gr.Checkbox(False, label="Lock seed", elem_id="lock", scale=0, min_width=130)
    for control in (ratio, base):
        control.change(_size_line, [ratio, base], size, **QUIET_EVENT)
    return {
        "prompt": prompt, "aspect_ratio": ratio, "model": variant, "base_resolution": base, "seed": seed,
        "is_seed_locked": lock, "count": count, "warnings": warnings,
    }  # fmt: skip


def _size_line(ratio: str, base: int) -> str:
    try:
        height, width = buckets_for(int(base))[ratio]
    except (LensError, KeyError, TypeError):
        return ""
    return f'<p class="lens-count">{width} x {height} pixels</p>'


def _enhance_controls(handlers: StudioHandlers, prompt: Any) -> None:
    import gradio as gr

    ask = gr.Button("Enhance prompt", size="sm", elem_id="enhance")
    with gr.Group(visible=False, elem_id="enhanced") as both:
        before = gr.Textbox(label="Original prompt", interactive=False, lines=2, elem_id="before")
        after = gr.Textbox(label="Enhanced prompt, editable", lines=4, elem_id="after")
        line = gr.HTML("")
        with gr.Row():
            use = gr.Button("Use enhanced prompt", variant="primary", size="sm", elem_id="use-enhanced")
            keep = gr.Button("Keep original", size="sm")

    def enhance(text: str, request: gr.Request) -> tuple[Any, str, str, str]:
        return gr.update(visible=True), text, *handlers.enhance(text, caller_name(request))

    ask.click(enhance, prompt, [both, before, after, line], api_visibility="private")
    use.click(lambda text: (text, gr.update(visible=False)), after, [prompt, both], **QUIET_EVENT)
    keep.click(lambda: gr.update(visible=False), None, both, **QUIET_EVENT)


def caller_name(request: Any) -> str:
    """Return the name of a page's visitor for the engine's fair queue and the moderation's records."""
    return f"studio {request.session_hash}"


def advanced_controls(handlers: StudioHandlers) -> tuple[dict[str, Any], Any]:
    """Lay out the other controls; return them by field, and the list of chosen LoRAs."""
    import gradio as gr

    first, loras = handlers.engine.models()[0], handlers.engine.loras()
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row():
            steps = gr.Slider(
                1,
                handlers.service.settings.engine.max_steps,
                first.default_steps,
                step=1,
                label="Steps",
                elem_id="steps",
                min_width=140,
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
            label="Negative prompt", info="Has no effect at guidance 1", lines=1, elem_id="negative"
        )
        with gr.Row():
            choices = [(solver.label, name) for name, solver in SOLVERS.items()]
            solver = gr.Dropdown(
                choices, value=DEFAULT_SOLVER, label="Solver", elem_id="solver", min_width=140
            )
            size = gr.Textbox(
                label="Exact size", info="Replaces ratio and base", placeholder="192x128",
                elem_id="size", min_width=140,
            )  # fmt: skip
        names = gr.Dropdown(
            loras, value=[], multiselect=True, label="LoRAs", visible=bool(loras), elem_id="loras"
        )
        table = gr.Dataframe(
            [], headers=["LoRA", "Weight"], datatype=["str", "number"], type="array", visible=False,
            label="LoRA weights", interactive=True, static_columns=[0], column_count=2,
            elem_id="lora-weights",
        )  # fmt: skip
        gr.HTML(SOURCE_IMAGE_HELP)
        start = gr.ImageEditor(
            label="Source image",
            type="pil",
            sources=("upload", "clipboard"),
            transforms=(),
            brush=gr.Brush(colors=["#ffffff"], color_mode="fixed"),
            layers=False,
            height=320,
            elem_id="start",
        )
        start = bound_editor(start, handlers.service.settings.limits.upload_px)
        strength = gr.Slider(
            0.01, 1, default_strength(has_mask=False), step=0.01, label="Strength",
            info="How much the source image changes; 1 ignores it", elem_id="strength",
        )  # fmt: skip
        is_strength_set = gr.Checkbox(
            False, visible="hidden", label="Strength is set", elem_id="strength-set"
        )

    def update_weights(chosen: list[str], rows: list[list[Any]]) -> Any:
        current = {row[0]: row[1] for row in rows or () if row}
        return gr.update(value=[[name, current.get(name, 1.0)] for name in chosen], visible=bool(chosen))

    names.input(update_weights, [names, table], table, **QUIET_EVENT)
    # In the browser, as Draw may be pressed before a request to the server has returned.
    strength.input(None, None, is_strength_set, js="() => true", show_progress="hidden")
    inputs = [start, strength, is_strength_set]
    start.change(handlers.shown_strength, inputs, strength, trigger_mode="always_last", **QUIET_EVENT)
    advanced = {
        "steps": steps, "guidance": guidance, "negative_prompt": negative, "solver": solver, "size": size,
        "loras": table, "start": start, "strength": strength, "is_strength_set": is_strength_set,
    }  # fmt: skip
    return advanced, names


def connect_variant_defaults(handlers: StudioHandlers, controls: dict[str, Any]) -> None:
    """Set a model's steps and guidance when it is chosen; in the browser, as Draw may be pressed next."""
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
