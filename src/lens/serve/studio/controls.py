"""The controls of the studio's first page, by the field of a form that they hold.

Their choices and limits come from the server's settings, the models, the solver table and the named sizes.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from lens.core.noise import MAX_SEED, RANDOM_SEED
from lens.core.resolution import ASPECT_RATIOS, buckets_for
from lens.core.step_caches import CACHE_NAMES, NO_CACHE
from lens.errors import LensError
from lens.prompts.styles import Style, check_pattern, check_style_name, edit_styles
from lens.sampling.defaults import MAX_UPSCALE, UPSCALE_STRENGTH, default_strength
from lens.sampling.solvers import DEFAULT_SOLVER, SOLVERS
from lens.serve.api.schemas import MAX_IMAGES_PER_REQUEST
from lens.serve.studio import html
from lens.serve.studio.form import LABELS, base_resolutions, variant_labels
from lens.serve.studio.handlers import StudioHandlers
from lens.serve.studio.uploads import EditedImage, bound_editor, with_methods

QUIET_EVENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of events that show no overlay and are not part of the public API."""
BROWSER_SECRET = "lens-studio"
"""Of what a browser keeps of a page. A fixed one, so that it can be read after the server's next start."""

SOURCE_IMAGE_HELP = (
    '<p class="lens-count">Source image: paint a mask to inpaint that area. Without a mask, all of it is'
    " generated again.</p>"
)


def unchecked(control: Any) -> Any:
    """Return a control of Gradio that passes on a number or a choice as a page sends it, for our own checks.

    Gradio's checks end in a message that names no field, with a traceback in the log, and call no handler, so
    that the status line stays as it was.
    """
    if control.get_block_name() in ("number", "slider", "dropdown", "radio"):
        with_methods(control, preprocess=lambda self, payload: payload)
    return control


def sent(event: Any, key: str) -> Any:
    """Return a part of what HTML sends with an event, or None."""
    return getattr(event, key, None)


def prompt_controls(handlers: StudioHandlers) -> dict[str, Any]:
    """Lay out the prompt and what helps with it; return the prompt, the line of warnings and Enhance."""
    import gradio as gr

    prompt = gr.Textbox(
        label=LABELS["prompt"],
        lines=3,
        max_lines=10,
        placeholder="two red apples to the left of a fox, on a blue background",
        elem_id="prompt",
        autofocus=True,
    )
    warnings = gr.HTML("", elem_id="prompt-warnings")
    enhance = _enhance_controls() if handlers.service.can_enhance else None
    return {"prompt": prompt, "warnings": warnings, "enhance": enhance}


def main_controls(handlers: StudioHandlers) -> dict[str, Any]:
    """Lay out the other controls that are always visible; return them by field."""
    import gradio as gr

    models = handlers.engine.models()
    first = models[0]
    ratio = gr.Radio(list(ASPECT_RATIOS), value="1:1", label=LABELS["aspect_ratio"], elem_id="ratios")
    size = gr.HTML(_size_line("1:1", first.base_resolution), elem_id="size-line")
    variant = gr.Radio(variant_labels(models), value=first.name, label=LABELS["model"], elem_id="variant")
    with gr.Row(elem_id="numbers"):
        base = gr.Dropdown(
            base_resolutions(first), value=first.base_resolution, label=LABELS["base_resolution"],
            elem_id="base", min_width=120,
        )  # fmt: skip
        count = gr.Number(
            1, label=LABELS["count"], precision=0, minimum=1, maximum=MAX_IMAGES_PER_REQUEST,
            elem_id="count", min_width=120,
        )  # fmt: skip
        seed = gr.Number(
            0, label=LABELS["seed"], precision=0, minimum=RANDOM_SEED, maximum=MAX_SEED, elem_id="seed",
            min_width=120,
        )  # fmt: skip
        lock = gr.Checkbox(False, label="Lock seed", elem_id="lock", min_width=120)
    for control in (ratio, base):
        control.change(_size_line, [ratio, base], size, **QUIET_EVENT)
    return {
        "aspect_ratio": ratio, "model": variant, "base_resolution": base, "seed": seed,
        "is_seed_locked": lock, "count": count,
    }  # fmt: skip


def _size_line(ratio: str, base: int) -> str:
    try:
        height, width = buckets_for(int(base))[ratio]
    except (LensError, KeyError, TypeError):
        return ""
    return f'<p class="lens-count">{width} x {height} pixels</p>'


class EnhanceControls(NamedTuple):
    """What asks the reasoner about a prompt, and shows the prompt before and after."""

    ask: Any
    both: Any
    """The group that is hidden until Enhance is pressed."""
    before: Any
    after: Any
    line: Any
    use: Any
    stop: Any
    keep: Any


def _enhance_controls() -> EnhanceControls:
    import gradio as gr

    ask = gr.Button("Enhance prompt", size="sm", elem_id="enhance")
    with gr.Group(visible=False, elem_id="enhanced") as both:
        before = gr.Textbox(label="Original prompt", interactive=False, lines=2, elem_id="before")
        after = gr.Textbox(label="Enhanced prompt, editable", lines=4, elem_id="after")
        line = gr.HTML("", elem_id="enhance-line")
        with gr.Row():
            use = gr.Button("Use enhanced prompt", variant="primary", size="sm", elem_id="use-enhanced")
            stop = gr.Button("Stop", size="sm", elem_id="stop-enhancing")
            keep = gr.Button("Keep original", size="sm", elem_id="keep-original")
    return EnhanceControls(ask, both, before, after, line, use, stop, keep)


def connect_enhance(handlers: StudioHandlers, prompt: Any, model: Any, parts: EnhanceControls | None) -> None:
    """Let the buttons ask the reasoner of the chosen model. The prompt changes only when a person says so."""
    import gradio as gr

    if parts is None:
        return

    def enhance(text: str, name: str, request: gr.Request) -> Iterator[list[Any]]:
        asking = html.status("The reasoner is asked. Stop or Escape ends that.")
        enabled, disabled = gr.update(interactive=True), gr.update(interactive=False)
        yield [gr.update(visible=True), text, "", asking, disabled, enabled]
        view = handlers.enhance(text or "", caller_name(request), name)
        yield [gr.skip(), gr.skip(), view.prompt, view.line_html, enabled, disabled]

    def stop(request: gr.Request) -> None:
        handlers.stop_enhancing(caller_name(request))

    def keep(request: gr.Request) -> Any:
        stop(request)
        return gr.update(visible=False)

    shown = [parts.both, parts.before, parts.after, parts.line, parts.use, parts.stop]
    parts.ask.click(enhance, [prompt, model], shown, trigger_mode="once", **QUIET_EVENT)
    used = [prompt, parts.both]
    parts.use.click(lambda text: (text, gr.update(visible=False)), parts.after, used, **QUIET_EVENT)
    parts.stop.click(stop, None, None, queue=False, **QUIET_EVENT)
    parts.keep.click(keep, None, parts.both, queue=False, **QUIET_EVENT)


def caller_name(request: Any) -> str:
    """Return the name of a page's visitor for the engine's fair queue and the moderation's records."""
    return f"studio {request.session_hash}"


class AdvancedControls(NamedTuple):
    """The controls that are hidden at first."""

    panel: Any
    by_field: dict[str, Any]
    lora_names: Any
    """The list of chosen LoRAs."""
    kept_source: Any
    """What the browser keeps of the source image and its mask: the names of their copies here."""


def advanced_controls(handlers: StudioHandlers) -> AdvancedControls:
    """Lay out the other controls."""
    import gradio as gr

    first, loras = handlers.engine.models()[0], handlers.engine.loras()
    kept_source = gr.BrowserState([], storage_key="lens-source", secret=BROWSER_SECRET)
    with gr.Accordion("Advanced", open=False, elem_id="advanced") as panel:
        with gr.Row():
            steps = gr.Slider(
                1,
                handlers.service.settings.engine.max_steps,
                first.default_steps,
                step=1,
                label=LABELS["steps"],
                info="More take longer",
                elem_id="steps",
                min_width=140,
            )
            guidance = gr.Slider(
                0,
                20,
                first.default_guidance,
                step=0.1,
                label=LABELS["guidance"],
                info="1 turns it off",
                elem_id="guidance",
                min_width=140,
            )
        negative = gr.Textbox(
            label=LABELS["negative_prompt"], info="Has no effect at guidance 1", lines=1, elem_id="negative"
        )
        with gr.Row():
            choices = [(solver.label, name) for name, solver in SOLVERS.items()]
            solver = gr.Dropdown(
                choices, value=DEFAULT_SOLVER, label=LABELS["solver"], info="The method of each step",
                elem_id="solver", min_width=220,
            )  # fmt: skip
            cache = gr.Dropdown(
                cache_choices(handlers.service.settings.engine.cache), label=LABELS["cache"],
                info="Faster, with a small loss", elem_id="cache", min_width=140,
            )  # fmt: skip
            size = gr.Textbox(
                label=LABELS["size"], info="Replaces ratio and base", placeholder="192x128",
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
        source_line = gr.HTML("", elem_id="source-line")
        start = bound_editor(start, handlers.service.settings.limits.upload_px)
        strength = gr.Slider(
            0.01, 1, default_strength(has_mask=False), step=0.01, label=LABELS["strength"],
            info="How much the source image changes; 1 ignores it", elem_id="strength",
        )  # fmt: skip
        is_strength_set = gr.Checkbox(
            False, visible="hidden", label="Strength is set", elem_id="strength-set"
        )

        with gr.Row():
            upscale = gr.Slider(
                1, MAX_UPSCALE, 1, step=0.5, label=LABELS["upscale"],
                info="2 draws the image again at twice its size", elem_id="upscale", min_width=260,
            )  # fmt: skip
            upscale_strength = gr.Slider(
                0.05, 1, UPSCALE_STRENGTH, step=0.05, label=LABELS["upscale_strength"],
                info="How much it changes then, and with Larger", elem_id="upscale-strength", min_width=260,
            )  # fmt: skip
        styles = style_controls(handlers)

    def update_weights(chosen: list[str], rows: list[list[Any]]) -> Any:
        current = {row[0]: row[1] for row in rows or () if row}
        return gr.update(value=[[name, current.get(name, 1.0)] for name in chosen], visible=bool(chosen))

    names.input(update_weights, [names, table], table, **QUIET_EVENT)
    # In the browser, as Draw may be pressed before a request to the server has returned.
    strength.input(None, None, is_strength_set, js="() => true", show_progress="hidden")

    def on_source(source: Any, value: float, is_set: bool) -> list[Any]:
        line = ""
        if isinstance(source, EditedImage):
            try:
                source = source.decode()
            except LensError as error:
                source = error
        if isinstance(source, LensError):
            source, line = None, html.error_line(source)
        return [handlers.shown_strength(source, value, is_set), handlers.keep_source(source), line]

    gr.on(
        [start.change, start.input, start.apply],  # by the page, by a person, by a stroke of the brush
        on_source, [start, strength, is_strength_set], [strength, kept_source, source_line],
        trigger_mode="always_last", **QUIET_EVENT,
    )  # fmt: skip
    advanced = {
        "steps": steps, "guidance": guidance, "negative_prompt": negative, "solver": solver, "cache": cache,
        "size": size, "loras": table, "start": start, "strength": strength,
        "is_strength_set": is_strength_set, "styles": styles, "upscale": upscale,
        "upscale_strength": upscale_strength,
    }  # fmt: skip
    return AdvancedControls(panel, advanced, names, kept_source)


def style_controls(handlers: StudioHandlers) -> Any:
    """Lay out the choice of styles, and what edits them; return the choice."""
    import gradio as gr

    path = handlers.service.settings.style_file
    names = list(handlers.styles())
    chosen = gr.Dropdown(
        names, value=[], multiselect=True, label=LABELS["styles"], info="Put around the prompt",
        elem_id="styles",
    )  # fmt: skip
    with gr.Accordion("Edit styles", open=False, elem_id="edit-styles"):
        name = gr.Dropdown(
            names, value=None, allow_custom_value=True, label="Style", info="Choose one, or type a new name",
            elem_id="style-name",
        )  # fmt: skip
        pattern = gr.Textbox(
            label="Pattern", info="{prompt} is the place of the prompt", lines=2, elem_id="style-pattern"
        )
        negative = gr.Textbox(label="Negative prompt of the style", elem_id="style-negative")
        with gr.Row():
            save = gr.Button("Save style", size="sm", elem_id="save-style")
            delete = gr.Button("Delete style", size="sm", elem_id="delete-style")
        line = gr.HTML("", elem_id="style-line")

    def show(picked: Any) -> list[Any]:
        style = handlers.styles().get(str(picked))
        if style is None:  # a new name: its pattern may be typed before this answer arrives
            return [gr.skip(), gr.skip()]
        return [style.prompt, style.negative_prompt]

    def edited(change: Any, text: str) -> list[Any]:
        try:
            changed = list(edit_styles(path, change))
        except LensError as error:
            return [gr.skip(), gr.skip(), html.error_line(error)]
        return [gr.update(choices=changed), gr.update(choices=changed), html.status(text)]

    def on_save(picked: Any, prompt: str, negative_prompt: str) -> list[Any]:
        def change(styles: dict[str, Style]) -> None:
            styles[check_style_name(str(picked or ""))] = Style.of(
                {"prompt": check_pattern(prompt), "negative_prompt": negative_prompt.strip()}, "the style"
            )

        return edited(change, "The style is saved.")

    def on_delete(picked: Any, picked_for_prompt: Any) -> list[Any]:
        first, second, told = edited(lambda styles: styles.pop(str(picked), None), "The style is deleted.")
        if "choices" not in first:
            return [first, second, told]
        kept = [one for one in picked_for_prompt or () if one in handlers.styles()]
        return [first | {"value": kept}, second | {"value": None}, told]

    def refresh() -> Any:
        return gr.update(choices=list(handlers.styles()))

    outputs = [chosen, name, line]
    for control in (chosen, name):  # other pages edit them too
        control.focus(refresh, None, control, **QUIET_EVENT)
    name.input(show, unchecked(name), [pattern, negative], **QUIET_EVENT)
    save.click(on_save, [name, pattern, negative], outputs, **QUIET_EVENT)
    delete.click(on_delete, [name, chosen], outputs, **QUIET_EVENT)
    return chosen


def cache_choices(default: str) -> list[tuple[str, str]]:
    """Return (label, value) of the caches of denoising steps; the first is that of the server's settings."""
    own = [] if default == NO_CACHE else [(f"{default}, from 12 steps on", "")]
    return [*own, ("none", NO_CACHE), *((name, name) for name in CACHE_NAMES)]


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
