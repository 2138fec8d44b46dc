"""What an image of --like records: files of the same content, versions, or the settings of another tool."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import LensError, SettingError
from lens.models.checkpoints.components.component_file import COMPONENT_OPTIONS
from lens.models.checkpoints.components.search import is_weight_file

if TYPE_CHECKING:
    from lens.sampling.image_metadata import FileRecord, ImageMetadata

logger = logging.getLogger(__name__)


def read_like(path: Path, has_prompt: bool, has_size: bool) -> "ImageMetadata | dict[str, Any]":
    """Return the metadata of an image; for one of another tool, the arguments that it fills, and log them.

    Raises: LensError for an image without settings or a sheet; SettingError if there is no prompt.
    """
    from lens.sampling.image_metadata import ImageMetadata, read_image_settings

    found = read_image_settings(path)
    if isinstance(found, ImageMetadata):
        if found.sheet is None:
            return found
        files = ", ".join(filter(None, found.sheet.files))
        raise LensError(f"{path} is a sheet of several images. Give one of them to --like: {files}.")
    if not (has_prompt or found.prompt):
        fix = f"Add a prompt of your own. {found.summary}"
        raise SettingError("--like", str(path), "an image whose prompt is found", fix)
    logger.warning("%s: %s", path, found.summary)
    values = {
        "prompts": [found.prompt],
        "negative_prompt": found.negative_prompt,
        "recorded_seed": found.seed,
        "steps": found.steps,
        "guidance": found.guidance,
    }
    return values if has_size else values | {"size": found.size}


def warn_of_other_versions(path: Path, metadata: "ImageMetadata") -> None:
    """Log which libraries have other versions here than when an image was drawn."""
    from lens.sampling.image_metadata import library_versions

    here = library_versions()
    other = {name: version for name, version in metadata.versions.items() if here.get(name) != version}
    if other:
        names = ", ".join(f"{name} {version}" for name, version in other.items())
        logger.warning("%s was generated with %s; with other versions, pixels may differ.", path, names)


def verified_path(record: "FileRecord", image_path: Path, option: str) -> Path:
    """Return the path of a file that an image records.

    Raises: LensError for one that is missing or has changed; it names the option that replaces it.
    """
    from lens.models.checkpoints.hashing import content_hash

    path = Path(record.path)
    if not path.exists():
        raise LensError(
            f"{image_path} was generated with {path}, which does not exist. Restore it, or replace it with "
            f"{option}."
        )
    if content_hash(path) != record.sha256:
        raise LensError(
            f"{image_path} was generated with {path}, which has changed since. "
            f"Add {option} {path} to use it as it is."
        )
    return path


def recorded_parts(
    image_path: Path, parts: Mapping[str, "FileRecord"], model: str | None, given: Mapping[str, Path | None]
) -> dict[str, Any]:
    """Return the parts of the model of an image that no option replaces, each with its content checked.

    `given` are the options of the other parts. A --model of another kind, such as a known name instead of a
    file, replaces all of them.
    """
    is_file = "transformer" in parts and is_weight_file(parts["transformer"].path)
    if model is not None and is_weight_file(model) != is_file:
        return {}
    values: dict[str, Any] = {"transformer": model, **given}
    if values["text_encoder"] is not None and parts.get("tokenizer") == parts.get("text_encoder"):
        del values["tokenizer"]  # it was inside the file that is replaced
    verified: dict[str, Any] = {
        part: verified_path(parts[part], image_path, COMPONENT_OPTIONS[part])
        for part, value in values.items()
        if value is None and part in parts
    }
    denoiser = verified.pop("transformer", None)
    return verified | {"model": str(denoiser)} if denoiser is not None and is_file else verified
