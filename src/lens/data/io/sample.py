"""The files of a sample: its image, and the captions and licence in the text and JSON files beside it."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lens.data.io.image_decoding import IMAGE_EXTENSIONS
from lens.data.io.text_values import CAPTION_KEYS, LICENCE_KEYS, first_text, tags_text, visible_text
from lens.text_files import TextError, decode_text

FULL_CAPTION = "txt"
BRIEF_CAPTION = "brief.txt"
"""Extensions of a sample's two captions in our shards."""
SIDECAR_EXTENSIONS = (FULL_CAPTION, "caption", "json", BRIEF_CAPTION)
"""Extensions of the files beside an image that are read, the most trusted first."""
MAX_SIDECAR_BYTES = 2**20
"""Longer side files are not read."""


class Sidecar(NamedTuple):
    """What lies beside an image; fields are empty where nothing is known."""

    caption: str = ""
    licence: str = ""
    brief: str = ""
    """The brief caption, where there is a full one too."""
    fault: str = ""
    """Why a side file cannot be read, for people; empty where all can."""


class ShardSample(NamedTuple):
    """What the files of one sample of a shard hold."""

    image: bytes
    """The encoded image; empty for none."""
    sidecar: Sidecar
    facts: dict[str, Any]
    """The JSON object that shards of a build hold for each sample; empty for none."""


def parse_sample(files: Mapping[str, bytes], draw_key: str = "") -> ShardSample:
    """Return what the files of a sample hold, given by extension."""
    images = (content for extension, content in files.items() if is_image(extension))
    texts = {name: data for name, data in files.items() if is_sidecar(name)}
    try:
        facts = _json_value(texts.get("json", b"{}"))
    except TextError:
        facts = {}
    return ShardSample(
        next(images, b""), merge_sidecars(texts, draw_key), facts if isinstance(facts, dict) else {}
    )


def is_image(extension: str) -> bool:
    """Return whether a file with this extension, without the first dot, claims to be an image."""
    return f".{extension.rpartition('.')[2].lower()}" in IMAGE_EXTENSIONS


def is_sidecar(extension: str) -> bool:
    """Return whether a file with this extension, without the first dot, may hold a caption or a licence."""
    return extension.rpartition(".")[2].lower() in SIDECAR_EXTENSIONS


def parse_sidecar(content: bytes, is_json: bool, draw_key: str = "") -> Sidecar:
    """Return what one side file says; JSON that is neither an object nor text says nothing.

    Of a list of captions one is drawn; the draw depends on `draw_key` alone.
    """
    try:
        if len(content) > MAX_SIDECAR_BYTES:
            raise TextError(f"has more than {MAX_SIDECAR_BYTES} bytes, too many for a caption")
        if not is_json:
            return Sidecar(visible_text(decode_text(content)))
        value = _json_value(content)
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            value = {"caption": value}
        if not isinstance(value, dict):
            return Sidecar()
        # Of art, a file often has tags alone.
        caption = first_text(value, CAPTION_KEYS, draw_key) or tags_text(value.get("tags"), draw_key)
        return Sidecar(caption, first_text(value, LICENCE_KEYS, draw_key))
    except TextError as error:
        return Sidecar(fault=str(error))


def merge_sidecars(texts: Mapping[str, bytes], draw_key: str = "") -> Sidecar:
    """Return what all side files of one image say together; `texts` are their contents by extension.

    `txt` is the full caption, else `caption`. A caption of a JSON file counts where there is neither, any
    other text, such as `brief.txt`, where there is no other. The licence is that of a JSON file.
    """
    names = sorted(texts, key=lambda name: (_rank(name), name))
    found = [parse_sidecar(texts[name], _is_json(name), draw_key) for name in names]
    faults = (f".{name} {one.fault}" for name, one in zip(names, found, strict=True) if one.fault)
    full = next((one.caption for one in found if one.caption), "")
    brief = next(
        (one.caption for name, one in zip(names, found, strict=True) if name == BRIEF_CAPTION), ""
    )
    return Sidecar(
        full, next((one.licence for one in found if one.licence), ""), brief if brief != full else "",
        next(faults, ""),
    )  # fmt: skip


def _rank(extension: str) -> int:
    simple = SIDECAR_EXTENSIONS[:2]
    return simple.index(extension) if extension in simple else 2 if _is_json(extension) else 3


def _is_json(extension: str) -> bool:
    return extension.rpartition(".")[2] == "json"


def _json_value(content: bytes) -> Any:
    try:
        return json.loads(decode_text(content))
    except TextError:
        raise
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise TextError(f"is not valid JSON ({reason})") from error
