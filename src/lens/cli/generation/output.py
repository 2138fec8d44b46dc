"""Output of `lens generate`: files named after their prompts, or one named file; a printed line for each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image

from lens.core.resolution import size_before_upscaling
from lens.errors import SettingError
from lens.files import check_writable, write_atomic, write_unique
from lens.reasoner.outcome import Reasoned
from lens.sampling.image_metadata import FORMAT_BY_SUFFIX, ImageMetadata, encode_image_file, slug
from lens.sampling.solvers import DEFAULT_SOLVER

PRINTED_FIELDS = ("prompt", "seed", "width", "height", "steps", "guidance", "model")
OPTIONAL_FIELDS = ("negative_prompt", "cache", "strength", "upscale", "upscale_strength")
"""Printed where they are set."""


@dataclass(frozen=True)
class OutputTarget:
    """A folder and a format; for a single image possibly the exact file."""

    folder: Path
    image_format: str
    file: Path | None = None

    @classmethod
    def of(cls, out: Path | None, image_format: str | None, like: Path | None, num_images: int) -> Self:
        """Return the target of --out and --format, checked to be writable.

        A name with an image suffix is a file, any other a folder. Without --format, the format is that of
        the image of --like.
        Raises: SettingError if the options contradict each other or nothing can be written there.
        """
        like_format = FORMAT_BY_SUFFIX.get(like.suffix.lower()) if like else None
        if out is None or out.is_dir() or not out.suffix:
            folder = out or Path()
            check_writable(folder)
            return cls(folder, image_format or like_format or "png")
        suffix_format = FORMAT_BY_SUFFIX.get(out.suffix.lower())
        if suffix_format is None:
            known = ", ".join(FORMAT_BY_SUFFIX)
            fix = f"The name of a new folder may not have a dot. Or create {out} first."
            raise SettingError("--out", str(out), f"a folder, or a file name that ends in {known}", fix)
        if image_format not in (None, suffix_format):
            raise SettingError(
                "--format", image_format, f"to agree with --out {out.name}", "Omit one of them."
            )
        if num_images > 1:
            raise SettingError(
                "--out", str(out), f"a folder for {num_images} images", "Or generate one image."
            )
        check_writable(out.parent)
        return cls(out.parent, suffix_format, out)

    def save(self, image: Image.Image, metadata: ImageMetadata, prefix: str = "") -> Path:
        """Write an image with its metadata and return its path, whose name begins with a prefix."""

        def write(file) -> None:
            encode_image_file(image, metadata, self.image_format, file)

        if self.file is not None:
            return write_atomic(self.file, write)
        return write_unique(
            self.folder, f"{prefix}{slug(metadata.request)}_{metadata.seed}", f".{self.image_format}", write
        )


def result_line(
    path: Path, metadata: ImageMetadata, as_json: bool, reasoned: Reasoned | None = None
) -> str:
    """Return what is printed of an image: its path, or settings that `--from-file` draws again.

    `reasoned` is what a reasoner made of its prompt, which has more than the metadata.
    """
    if not as_json:
        return str(path)
    values: dict[str, Any] = {"path": str(path)}
    values |= {name: getattr(metadata, name) for name in PRINTED_FIELDS}
    values |= {name: value for name in OPTIONAL_FIELDS if (value := getattr(metadata, name))}
    if metadata.reasoner is not None:
        values["original_prompt"] = metadata.original_prompt
        values["reasoner"] = metadata.reasoner.model_dump()
        if reasoned is not None:
            answer = reasoned.to_json()
            values["reasoner"] |= {name: answer[name] for name in ("reason", "checks", "usage")}
    if metadata.upscale:
        values["size"] = "{1}x{0}".format(
            *size_before_upscaling(metadata.height, metadata.width, metadata.upscale)
        )
    if metadata.solver != DEFAULT_SOLVER:
        values["solver"] = metadata.solver
    if metadata.loras:
        values["loras"] = [{"path": lora.path, "weight": lora.weight} for lora in metadata.loras]
    for name in ("init_image", "mask"):
        if (file := getattr(metadata, name)) is not None:
            values[name] = file.path
    return json.dumps(values)
