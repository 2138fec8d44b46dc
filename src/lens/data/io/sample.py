"""The files of a sample: its image, and the caption and licence in the text and JSON files beside it."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lens.data.io.image_decoding import IMAGE_EXTENSIONS

CAPTION_KEYS = ("caption", "text", "description", "title")
"""Keys of JSON that may hold the caption; the first one that is not empty counts."""
FULL_CAPTION = "txt"
BRIEF_CAPTION = "brief.txt"
"""Extensions of a sample's two captions in our shards."""


class Sidecar(NamedTuple):
    """What lies beside an image; fields are empty where nothing is known."""

    caption: str = ""
    licence: str = ""


class ShardSample(NamedTuple):
    """What the files of one sample of a shard hold."""

    image: bytes
    """The encoded image; empty for none."""
    sidecar: Sidecar
    facts: dict[str, Any]
    """The JSON object that shards of a build hold for each sample; empty for none."""


def parse_sample(files: Mapping[str, bytes]) -> ShardSample:
    """Return what the files of a sample hold, given by extension."""
    images = (content for extension, content in files.items() if is_image(extension))
    texts = {name: data.decode(errors="replace") for name, data in files.items() if is_sidecar(name)}
    return ShardSample(next(images, b""), merge_sidecars(texts), _json_object(texts.get("json", "")))


def is_image(extension: str) -> bool:
    """Return whether a file with this extension, without the dot, is an image."""
    return f".{extension.lower()}" in IMAGE_EXTENSIONS


def is_sidecar(extension: str) -> bool:
    """Return whether a file with this extension, without the first dot, may hold a caption or a licence."""
    return extension.rpartition(".")[2] in ("txt", "json")


def parse_sidecar(text: str, is_json: bool) -> Sidecar:
    """Return what one side file says; JSON that cannot be parsed, or is not an object, says nothing."""
    if not is_json:
        return Sidecar(text.strip())
    values = _json_object(text)
    caption = next((values[key] for key in CAPTION_KEYS if values.get(key)), "")
    return Sidecar(str(caption).strip(), str(values.get("licence") or values.get("license") or "").strip())


def merge_sidecars(texts: Mapping[str, str]) -> Sidecar:
    """Return what all side files of one image say together; `texts` are their contents by extension.

    `txt` is the full caption. A caption of a JSON file counts where there is no `txt`, any other text, such
    as `brief.txt`, where there is neither. The licence is that of a JSON file, whatever the caption is.
    """
    found = [parse_sidecar(texts[name], _is_json(name)) for name in sorted(texts, key=_rank)]
    caption = next((one.caption for one in found if one.caption), "")
    return Sidecar(caption, next((one.licence for one in found if one.licence), ""))


def _rank(extension: str) -> int:
    return 0 if extension == FULL_CAPTION else 1 if _is_json(extension) else 2


def _is_json(extension: str) -> bool:
    return extension.rpartition(".")[2] == "json"


def _json_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
