"""The studio's help with prompts: their tokens, what nano models do not know of them, and a list of that.

Models of other worlds have the tokens alone.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from lens.core.prompt_text import check_prompt_text
from lens.core.resolution import buckets_for
from lens.errors import LensError, SettingError
from lens.nano.request_warnings import is_nano, request_warnings
from lens.nano.world_guide import examples, guide_lines
from lens.sampling.request_warnings import distinct
from lens.serve.api.generation import GenerationService
from lens.serve.engine.request import ModelInfo
from lens.serve.studio import html
from lens.serve.studio.controls import QUIET_EVENT
from lens.serve.studio.handlers import StudioHandlers


def warning_line(model: ModelInfo, prompt: str, ratio: str, base: Any, size: str = "") -> str:
    """Return what a model does not know of a prompt and a size as HTML; empty without warnings."""
    pixels: tuple[int, int] | None = None
    try:
        width, _, height = size.lower().replace(" ", "").partition("x")
        pixels = (int(height), int(width)) if size.strip() else buckets_for(int(base))[ratio]
    except (LensError, KeyError, TypeError, ValueError):
        pass  # a size that cannot be drawn has an error of its own
    bases = model.trained_bases or (model.base_resolution,)
    return html.warning_lines(request_warnings(model.variant, bases, prompt, pixels))


def read_text(service: GenerationService, prompt: str) -> tuple[str, Sequence[str]]:
    """Return a prompt as a model gets it for some seed, and what is told of its syntax."""
    if not prompt.strip():
        return prompt, ()
    try:
        read = service.settings.prompt_reader().read(prompt, "", seed=0)
    except SettingError as error:
        return prompt, [str(error)]
    return read.prompt, read.warnings


def length_line(service: GenerationService, model: ModelInfo, prompt: str) -> str:
    """Return how many tokens a prompt has for a model, and what is cut of it, as HTML."""
    try:
        check_prompt_text(prompt, "prompt", service.settings.limits.prompt_characters)
    except SettingError as error:
        return html.warning_lines([str(error)])
    count = service.count_tokens(model.name, prompt)
    if count is None:
        return ""
    return html.token_line(count) + html.warning_lines(distinct([count.warning()]))


def guide_html() -> str:
    """Return what the nano world has as HTML."""
    rows = "".join(f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>" for title, text in guide_lines())
    return f'<div class="lens-detail"><dl>{rows}</dl></div>'


def connect_warnings(handlers: StudioHandlers, controls: dict[str, Any], line: Any) -> None:
    """Keep the line under the prompt up to date while a person types."""

    def update(prompt: str, name: str, ratio: str, base: Any, size: str) -> str:
        model, (text, told) = handlers.model(name), read_text(handlers.service, prompt or "")
        lines = length_line(handlers.service, model, text) + html.warning_lines(told)
        return lines + warning_line(model, text, ratio, base, size or "")

    names = ("prompt", "model", "aspect_ratio", "base_resolution", "size")
    inputs = [controls[name] for name in names]
    line.value = update("", handlers.engine.models()[0].name, "", None, "")  # before anything is typed
    for control in inputs:
        control.change(update, inputs, line, queue=False, trigger_mode="always_last", **QUIET_EVENT)


def guide_panel(handlers: StudioHandlers, controls: dict[str, Any]) -> None:
    """Lay out the list of what the model knows, with prompts to click; hidden for models of other worlds."""
    import gradio as gr

    models = {model.name: is_nano(model.variant) for model in handlers.engine.models()}
    if not any(models.values()):
        return
    first = next(iter(models.values()))
    with gr.Accordion("What this model knows", open=False, visible=first, elem_id="guide") as panel:
        prompts = gr.Dataset(
            label="Prompts to start with", components=["textbox"], samples=[[one] for one in examples()],
            samples_per_page=len(examples()), elem_id="examples",
        )  # fmt: skip
        gr.HTML(guide_html())
    prompts.click(lambda sample: sample[0], prompts, controls["prompt"], queue=False, **QUIET_EVENT)
    controls["model"].change(
        lambda name: gr.update(visible=models.get(name, False)), controls["model"], panel,
        queue=False, **QUIET_EVENT,
    )  # fmt: skip
