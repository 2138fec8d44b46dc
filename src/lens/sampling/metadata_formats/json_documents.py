"""JSON documents of InvokeAI, Fooocus, SwarmUI, Draw Things and NovelAI in images: an object of settings.

To add a tool, add an entry to `DOCUMENTS`. InvokeAI's first versions wrote a line of options instead.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lens.sampling.metadata_formats.foreign_settings import ForeignSettings, shortened


@dataclass(frozen=True)
class DocumentForm:
    """The names that a tool gives to the settings of Lens."""

    tool: str
    marks: tuple[str, ...]
    """Keys of which every document of the tool has one, and no other tool's."""
    names: Mapping[str, tuple[str, ...]]
    """By setting of Lens, the tool's names, the first that is there counts."""
    inside: str | None = None
    """The key of an object that holds the settings."""
    no_settings: tuple[str, ...] = ()
    """Keys that are not worth a word."""


DOCUMENTS = (
    DocumentForm(
        "InvokeAI",
        ("positive_prompt",),
        {
            "prompt": ("positive_prompt",), "negative_prompt": ("negative_prompt",), "seed": ("seed",),
            "width": ("width",), "height": ("height",), "steps": ("steps", "num_steps"),
            "guidance": ("cfg_scale", "guidance"),
        },
        no_settings=("app_version", "generation_mode", "rand_device", "ref_images", "canvas_v2_metadata"),
    ),
    DocumentForm(
        "InvokeAI",
        ("app_id", "model_weights"),
        {
            "prompt": ("prompt",), "seed": ("seed",), "width": ("width",), "height": ("height",),
            "steps": ("steps",), "guidance": ("cfg_scale",),
        },
        inside="image",
        no_settings=("type", "postprocessing", "variations"),
    ),
    DocumentForm(
        "Fooocus",
        ("metadata_scheme", "adm_guidance"),
        {
            "prompt": ("prompt",), "negative_prompt": ("negative_prompt",), "seed": ("seed",),
            "steps": ("steps",), "guidance": ("guidance_scale",),
        },
        no_settings=("version", "metadata_scheme", "full_prompt", "full_negative_prompt"),
    ),
    DocumentForm(
        "SwarmUI",
        ("sui_image_params",),
        {
            "prompt": ("prompt",), "negative_prompt": ("negativeprompt",), "seed": ("seed",),
            "width": ("width",), "height": ("height",), "steps": ("steps",), "guidance": ("cfgscale",),
        },
        inside="sui_image_params",
        no_settings=("swarm_version",),
    ),
    DocumentForm(
        "Draw Things",
        ("c",),
        {
            "prompt": ("c",), "negative_prompt": ("uc",), "seed": ("seed",), "steps": ("steps",),
            "guidance": ("scale",),
        },
        no_settings=("v2",),
    ),
    DocumentForm(
        "NovelAI",
        ("uc",),
        {
            "prompt": ("prompt",), "negative_prompt": ("uc",), "seed": ("seed",), "width": ("width",),
            "height": ("height",), "steps": ("steps",), "guidance": ("scale",),
        },
        no_settings=("signed_hash", "request_type", "v4_prompt", "v4_negative_prompt"),
    ),
)  # fmt: skip
MAX_DREAM_CHARACTERS, MAX_SHOWN = 20_000, 16
DREAM_NAMES = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "guidance"}


def document_settings(document: Any) -> ForeignSettings | None:
    """Return the settings in a JSON document of one of the tools, or None."""
    if not isinstance(document, dict):
        return None
    for form in DOCUMENTS:
        if any(mark in document for mark in form.marks):
            values = document if form.inside is None else document.get(form.inside)
            if isinstance(values, dict):
                return _settings(form, values)
    return None


def _settings(form: DocumentForm, document: Mapping[str, Any]) -> ForeignSettings:
    values = {
        ours: next((document[name] for name in names if document.get(name) is not None), None)
        for ours, names in form.names.items()
    }
    if isinstance(values["prompt"], list):  # InvokeAI 2: weighted parts
        parts = [one.get("prompt") if isinstance(one, dict) else one for one in values["prompt"]]
        values["prompt"] = " ".join(part for part in parts if isinstance(part, str))
    if form.tool == "InvokeAI" and "negative_prompt" not in form.names:
        values |= split_negative(values["prompt"])
    size_name = "resolution" if "resolution" in document else "size"  # of Fooocus and of Draw Things
    size = re.fullmatch(r"\(?(\d+)(?:, |x)(\d+)\)?", str(document.get(size_name, "")))
    if size:
        values |= {"width": size[1], "height": size[2]}
    taken = {name for names in form.names.values() for name in names}
    skipped = taken | set(form.no_settings) | ({size_name} if size else set())
    others = [
        (name, _shown(value))
        for name, value in document.items()
        if name not in skipped and value not in (None, "", False, [], {})
    ]
    return ForeignSettings.of(form.tool, values, others)


def dream_settings(text: str) -> ForeignSettings | None:
    """Return the settings of InvokeAI's first versions: `"a fox" -s50 -W512 -H512 -C7.5 -A k_lms -S5`."""
    if not text.startswith('"') or len(text) > MAX_DREAM_CHARACTERS:
        return None
    try:
        prompt, *words = shlex.split(text)
    except ValueError:
        return None
    options: dict[str, str] = {}
    for word in words:
        if re.match("-[A-Za-z]", word):
            options[word[1]] = word[2:]
        elif options:
            options[next(reversed(options))] += word
    if not options.keys() & DREAM_NAMES:
        return None
    values = split_negative(prompt) | {DREAM_NAMES[one]: options[one] for one in options.keys() & DREAM_NAMES}
    others = [(f"-{letter}", value) for letter, value in options.items() if letter not in DREAM_NAMES]
    return ForeignSettings.of("InvokeAI", values, others)


def split_negative(prompt: Any) -> dict[str, Any]:
    """Return a prompt of InvokeAI 2, whose negative parts stand in square brackets, as two."""
    text = prompt if isinstance(prompt, str) else ""
    negative = " ".join(part.strip() for part in re.findall(r"\[([^\[\]]*)\]", text))
    return {"prompt": re.sub(r"\s*\[[^\[\]]*\]", "", text).strip(), "negative_prompt": negative}


def _shown(value: Any) -> Any:
    """Return a value with its names alone where it describes models."""
    if isinstance(value, list):
        return ", ".join(shortened(_name(one)) for one in value[:MAX_SHOWN])
    return _name(value)


def _name(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    model = value.get("lora") or value.get("model")
    model = model if isinstance(model, dict) else value
    name = next((model[key] for key in ("model_name", "name") if key in model), value)
    return f"{shortened(name)} ({shortened(value['weight'])})" if "weight" in value else name
