"""What an image of --like records: settings, files of the same content, versions; settings of other tools."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.core.resolution import size_before_upscaling
from lens.errors import LensError, SettingError
from lens.models.checkpoints.components.component_file import COMPONENT_OPTIONS
from lens.models.checkpoints.components.search import is_weight_file

if TYPE_CHECKING:
    from lens.sampling.image_metadata import FileRecord, ImageMetadata

logger = logging.getLogger(__name__)

PART_OPTIONS = ("text_encoder", "vae", "tokenizer")
"""Options that name a component of the model."""


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


def recorded_arguments(
    path: Path, metadata: "ImageMetadata", given: Mapping[str, Any], has_size: bool
) -> dict[str, Any]:
    """Return the arguments that an image records, its files with their content checked.

    `given` are the arguments of the command: what they replace is not read.
    Raises: LensError naming a file that has changed or is missing, and the option that replaces it.
    """
    from lens.models.prompt_date import PINNED_DATE
    from lens.prompts.syntax import escape

    warn_of_other_versions(path, metadata)
    recorded: dict[str, Any] = {
        "prompts": [escape(metadata.prompt)],
        "negative_prompt": escape(metadata.negative_prompt),
        "recorded_seed": metadata.seed,
        "steps": metadata.steps,
        "guidance": metadata.guidance,
        "solver": metadata.solver,
        "cache": metadata.cache,
        "upscale": metadata.upscale,
        "upscale_strength": metadata.upscale_strength,
        "model": metadata.model,
        "dtype": metadata.dtype,
        "device": metadata.device,
        "quantize": metadata.quantize,
        "tile_px": metadata.tile_px,
        "threads": metadata.threads,
        "prompt_date": metadata.prompt_date or PINNED_DATE,
    }
    if not has_size:
        height, width = size_before_upscaling(metadata.height, metadata.width, metadata.upscale)
        recorded["size"] = f"{width}x{height}"
    if metadata.parts:
        parts = {part: given[part] for part in PART_OPTIONS}
        recorded |= recorded_parts(path, metadata.parts, given["model"], parts)
    elif given["model"] is None:
        recorded["model_hash"] = metadata.model_hash
    if not given["lora"]:
        recorded["lora"] = [
            f"{verified_path(lora, path, '--lora')}:{lora.weight!r}" for lora in metadata.loras
        ]
    if given["init_image"] is None and metadata.init_image is not None:
        mask = metadata.mask if given["mask"] is None else None
        recorded["init_image"] = verified_path(metadata.init_image, path, "--init-image")
        recorded["mask"] = verified_path(mask, path, "--mask") if mask else None
        recorded["strength"] = metadata.strength
    if not given["prompts"]:
        recorded |= {"original_prompt": metadata.original_prompt, "reasoner_record": metadata.reasoner}
    return recorded
