"""Image files: metadata inside the file, reading it back, and file names from prompts.

A PNG stores the metadata in text chunks: `lens` (a JSON document) and `parameters` (the text that other tools
read). JPEG and WebP store the same two texts in EXIF as ImageDescription and UserComment.
Knows nothing of models or sampling; `metadata_formats` has the forms of other tools.
"""

import json
import re
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from pydantic import Field

from lens.config import Settings
from lens.core.images import to_mask, to_srgb
from lens.core.resolution import size_before_upscaling
from lens.errors import LensError
from lens.reasoner.outcome import Outcome, Reasoned
from lens.sampling.metadata_formats.foreign_settings import ForeignSettings
from lens.sampling.metadata_formats.image_texts import (
    COMMENT_NAME,
    EXIF_ERRORS,
    encode_user_comment,
    exif_texts,
)
from lens.sampling.metadata_formats.infotext import format_infotext
from lens.sampling.metadata_formats.reading import (
    READABLE_TOOLS,
    describe_image,
    foreign_settings,
    settings_beside,
)
from lens.sampling.solvers import SOLVERS
from lens.text_files import TextError, parse_json

FORMAT_BY_SUFFIX = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
ENCODER_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 95, "method": 4},
}
METADATA_CHUNK = "lens"
XMP_CHUNK = "XML:com.adobe.xmp"
REPORTED_DISTRIBUTIONS = {
    "lens": "lens-t2i",
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
}
"""Reported libraries, each with its distribution."""
DOCUMENT_PREFIX = "lens:"
"""Stands before the JSON document in EXIF, where texts have no names of ours."""
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".bin")
SCHEDULE_NAME = "Simple"
"""What other tools call steps at equal distances, shifted by the size of the image."""
SHORT_HASH, SHORT_LORA_HASH = 10, 12
"""Digits of the hashes that other tools look files up by."""
EXIF_VERSION = b"0232"
EXIF_BYTE, EXIF_UNDEFINED = 1, 7  # types of values
MAX_SLUG_BYTES = 60


class FileRecord(Settings):
    """A file that was used to generate an image, identified by its content."""

    path: str
    sha256: str


class LoraRecord(FileRecord):
    """A LoRA file and its weight."""

    weight: float = 1.0
    weights_sha256: str | None = None
    """SHA-256 of the weights alone, which other tools look the file up by; see `weights_hash`."""


class ReasonerRecord(Settings):
    """Where a prompt comes from that a reasoner was asked about."""

    outcome: Outcome
    model: str | None = None
    """Name of the language model, or of the rule engine."""
    system_prompt: str | None = None
    """Name of the system prompt."""
    system_prompt_hash: str | None = None
    """SHA-256 of its text."""


class AxisRecord(Settings):
    """A setting that a sheet of images varies, and its values."""

    setting: str
    values: tuple[int | float | str, ...]


class SheetRecord(Settings):
    """A sheet that shows several images, row by row: a grid over two settings, or two images compared."""

    width: int
    height: int
    columns: AxisRecord | None = None
    rows: AxisRecord | None = None
    files: tuple[str | None, ...]
    """The file name of each image; None for one that could not be generated."""
    images: tuple["ImageMetadata | None", ...]
    """The metadata of each image."""


class ImageMetadata(Settings):
    """Everything that decides the pixels of an image, and the versions of the libraries."""

    prompt: str
    negative_prompt: str = ""
    prompt_template: str | None = None
    """The prompt before its alternatives, wildcards, LoRAs and weights were read, where it had any."""
    original_prompt: str | None = None
    """The request that a reasoner was asked about; `prompt` is what came of it."""
    reasoner: ReasonerRecord | None = None
    """The reasoner that was asked; None without one."""
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    solver: str
    cache: str | None = None
    """The cache of steps, a name of `lens.models.step_cache.CACHES`."""
    model: str
    """Known name, hub id or absolute folder."""
    model_hash: str
    """SHA-256 over all files of the model; see `content_hash`."""
    parts: dict[str, FileRecord] | None = None
    """The file or folder of each component, for a model that consists of several."""
    prompt_date: str | None = None
    """The date in the conversation around the prompt; images of older versions have the pinned one."""
    loras: tuple[LoraRecord, ...] = ()
    init_image: FileRecord | None = None
    mask: FileRecord | None = None
    strength: float | None = None
    upscale: float | None = None
    """The factor of size at which the image was drawn again from its latents; width and height are after."""
    upscale_strength: float | None = None
    dtype: str
    device: str
    quantize: str | None = None
    tile_px: int | None = None
    """Side of the tiles that the image was decoded in for lack of memory; None is the pipeline's own rule."""
    threads: int | None = None
    """CPU threads; sums split among another number of threads may round differently."""
    versions: dict[str, str] = Field(default_factory=dict)
    sheet: SheetRecord | None = None
    """The sheet that this is, whose first image has the other settings."""

    @property
    def request(self) -> str:
        """The prompt as it was asked for, which names the file."""
        return self.prompt if self.original_prompt is None else self.original_prompt

    @property
    def file_size(self) -> tuple[int, int]:
        """(width, height) of the image in the file."""
        return (self.sheet.width, self.sheet.height) if self.sheet else (self.width, self.height)

    def parameters(self) -> str:
        """Return the settings in the text format that other image generation tools display and parse."""
        solver = SOLVERS.get(self.solver)
        fields = {
            "Steps": self.steps,
            "Sampler": solver.title if solver else self.solver,
            "Schedule type": SCHEDULE_NAME,
            "CFG scale": self.guidance,
            "Seed": self.seed,
            "Size": "{1}x{0}".format(*size_before_upscaling(self.height, self.width, self.upscale)),
            "Model hash": self.model_hash[:SHORT_HASH],
            "Model": Path(self.model).name,
        }
        if self.cache:
            fields["Cache"] = self.cache
        if self.init_image:
            fields |= {"Denoising strength": self.strength, "Init image": Path(self.init_image.path).name}
        if self.upscale:
            fields |= {"Denoising strength": self.upscale_strength, "Hires upscale": f"{self.upscale:g}"}
        if self.mask:
            fields["Mask"] = Path(self.mask.path).name
        fields["Version"] = f"lens {self.versions.get('lens', 'unknown')}"
        loras = [
            (
                _weights_name(lora.path),
                lora.weight,
                (lora.weights_sha256 or lora.sha256)[:SHORT_LORA_HASH],
            )
            for lora in self.loras
        ]
        hashes = {"model": self.model_hash[:SHORT_HASH]}
        return format_infotext(self.prompt, self.negative_prompt, fields, loras, hashes)


def _weights_name(path: str) -> str:
    """Return the name that prompts call a file of weights by."""
    name = Path(path).name
    return Path(name).stem if name.lower().endswith(WEIGHT_SUFFIXES) else name


def reasoner_fields(reasoned: Reasoned) -> dict[str, Any]:
    """Return the fields of `ImageMetadata` that record what a reasoner made of a prompt."""
    record = {name: getattr(reasoned, name) for name in ReasonerRecord.model_fields}
    return {
        "prompt": reasoned.prompt,
        "original_prompt": reasoned.original,
        "reasoner": ReasonerRecord.of(record),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that generate images here."""
    return {name: version(distribution) for name, distribution in REPORTED_DISTRIBUTIONS.items()}


def encode_image_file(
    image: Image.Image,
    metadata: ImageMetadata,
    image_format: str,
    file: BinaryIO,
    quality: int | None = None,
    xmp: str | None = None,
) -> None:
    """Write an image with its metadata to a file, as `png`, `jpg` or `webp`.

    `quality` is for `jpg` and `webp`, from 0 to 100; `xmp` is a packet that is stored with the metadata.
    """
    document = json.dumps(
        metadata.model_dump(mode="json", exclude_none=True)
    )  # ASCII: \u escapes for the rest
    options = dict(ENCODER_OPTIONS[image_format])
    if image_format == "png":
        chunks = PngImagePlugin.PngInfo()
        # tEXt where Latin-1 suffices, else iTXt, which some readers do not see.
        chunks.add_text(METADATA_CHUNK, document)
        chunks.add_text("parameters", metadata.parameters())
        if xmp is not None:
            chunks.add_itxt(XMP_CHUNK, xmp)
        options["pnginfo"] = chunks
    else:
        exif = Image.Exif()
        exif.endian = ">"  # the order of the comment's UTF-16, which some readers take from here
        exif[ExifTags.Base.ImageDescription] = DOCUMENT_PREFIX + document
        exif[ExifTags.Base.Software] = f"lens {metadata.versions.get('lens', '')}".strip()
        comment = encode_user_comment(metadata.parameters())
        exif.get_ifd(ExifTags.IFD.Exif).update(
            {ExifTags.Base.ExifVersion: EXIF_VERSION, ExifTags.Base.UserComment: comment}
        )
        options["exif"] = _with_undefined_comment(exif.tobytes(), len(comment))
        if xmp is not None:
            options["xmp"] = xmp.encode()
        if quality is not None:
            options["quality"] = quality
    try:
        image.save(file, **options)
    except ValueError as error:  # EXIF holds 64 KB
        remedy = "Use png, which has no size limit."
        raise LensError(
            f"The metadata does not fit into a {image_format} file ({error}). {remedy}"
        ) from error


def _with_undefined_comment(exif: bytes, num_bytes: int) -> bytes:
    """Return EXIF data with the type that the standard asks for a UserComment; Pillow writes BYTE."""
    order = "<" if exif[6:8] == b"II" else ">"
    entry, standard = (
        struct.pack(f"{order}HHL", ExifTags.Base.UserComment, kind, num_bytes)
        for kind in (EXIF_BYTE, EXIF_UNDEFINED)
    )
    assert entry in exif, "Pillow has changed how it writes a UserComment"
    return exif.replace(entry, standard, 1)  # before it stands ASCII alone, after it any text


def read_image_metadata(path: Path) -> ImageMetadata:
    """Return the metadata of an image file that Lens wrote.

    Raises: LensError for a file that is not an image, has no metadata, or has damaged metadata.
    """
    settings = read_image_settings(path)
    if isinstance(settings, ForeignSettings):
        raise LensError(
            f"{path} has no metadata of Lens, only settings of {settings.tool}. Draw it again with --like."
        )
    return settings


def read_image_settings(path: Path) -> ImageMetadata | ForeignSettings:
    """Return the metadata of an image file that Lens wrote, or what another tool recorded in it.

    Raises: LensError for a file that is not an image, has no settings, or has damaged ones.
    """
    with _opened(path) as image:
        image.load()
        try:
            document = metadata_json(image)
        except EXIF_ERRORS:
            document = None
        foreign = None if document is not None else foreign_settings(image) or settings_beside(path)
        description = describe_image(image)
    if document is not None:
        return parse_image_metadata(document, path)
    if foreign is None:
        raise LensError(
            f"{path} has no metadata of Lens, {READABLE_TOOLS}. It is {description}. "
            "Many programs remove metadata when they save an image; use the original file."
        )
    return foreign


def metadata_json(image: Image.Image) -> str | None:
    """Return the JSON text of the metadata of an open image, unchecked; None if there is none.

    Raises: EXIF_ERRORS for damaged EXIF data.
    """
    if METADATA_CHUNK in image.info:
        return image.info[METADATA_CHUNK]
    texts = exif_texts(image)
    description = texts.get("ImageDescription", "")
    if description.startswith(DOCUMENT_PREFIX):
        return description.removeprefix(DOCUMENT_PREFIX)
    comment = texts.get(COMMENT_NAME, "")  # where the first versions wrote the document
    return comment if comment.startswith("{") and '"model_hash":' in comment else None


def parse_image_metadata(document: str, path: Path) -> ImageMetadata:
    """Return the metadata in a JSON text, read from the image at `path`.

    Raises: LensError for damaged metadata.
    """
    try:
        values = parse_json(document)
    except TextError as error:
        raise LensError(f"The metadata in {path} {error}. Use another copy of the file.") from error
    if not isinstance(values, dict):
        raise LensError(f"The metadata in {path} is not a JSON object. Use another copy of the file.")
    return ImageMetadata.of(values, source=f"the metadata in {path}")


def open_image(path: Path) -> Image.Image:
    """Return an image that is fully read from a file, with its `info`.

    Raises: LensError with a message for each case: missing file, not an image, damaged image.
    """
    with _opened(path) as image:
        image.load()
        return image.copy()


def open_source_image(path: Path) -> Image.Image:
    """Return the image of a file as models see it: upright, opaque, in sRGB.

    Raises: LensError, as `open_image` does.
    """
    with _opened(path) as image:
        return to_srgb(image).image


def open_mask(path: Path) -> Image.Image:
    """Return the inpainting mask of a file, white where it redraws. Raises: LensError, as `open_image`."""
    with _opened(path) as image:
        return to_mask(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        what = "is a folder, not an image" if path.is_dir() else "does not exist"
        raise LensError(f"{path} {what}. Check the path.")
    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        raise LensError(f"{path} is not a readable image. Use a PNG, JPEG or WebP file.") from error
    except Exception as error:  # decoders raise any exception for damaged files
        raise LensError(f"{path} cannot be read ({error}). Use another copy, or save it as PNG.") from error


def slug(prompt: str) -> str:
    """Return a file name for a prompt: lower-case words of any language, joined by hyphens, truncated."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", prompt).lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word
        if len(longer.encode()) > MAX_SLUG_BYTES:
            break
        name = longer
    first_word = words[0].encode()[:MAX_SLUG_BYTES].decode(errors="ignore") if words else ""
    return name or first_word or "picture"
