"""Where pictures go: a folder, under names that say what they show, or the one file that was named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

from lens.errors import SettingError
from lens.files import check_writable, write_atomic, write_unique
from lens.sampling.image_metadata import FORMAT_BY_SUFFIX, ImageMetadata, encode_image_file, slug


@dataclass(frozen=True)
class OutputTarget:
    """A folder and a format; for a single picture perhaps the exact file."""

    folder: Path
    image_format: str
    file: Path | None = None

    @classmethod
    def of(cls, out: Path | None, image_format: str | None, like: Path | None, num_images: int) -> Self:
        """Return the target that --out and --format mean, known to be writable.

        A name that ends like a picture is a file, anything else a folder; --like hands on its format.
        Raises: SettingError where they contradict each other or nothing can be written there.
        """
        like_format = FORMAT_BY_SUFFIX.get(like.suffix.lower()) if like else None
        if out is None or out.is_dir() or not out.suffix:
            folder = out or Path()
            check_writable(folder)
            return cls(folder, image_format or like_format or "png")
        suffix_format = FORMAT_BY_SUFFIX.get(out.suffix.lower())
        if suffix_format is None:
            known = ", ".join(FORMAT_BY_SUFFIX)
            fix = f"A new folder's name may not have a dot; or make {out} first."
            raise SettingError("--out", str(out), f"a folder, or a file name that ends in {known}", fix)
        if image_format not in (None, suffix_format):
            raise SettingError(
                "--format", image_format, f"to agree with --out {out.name}", "Leave one of them out."
            )
        if num_images > 1:
            raise SettingError(
                "--out", str(out), f"a folder for {num_images} pictures", "Give one, or --count 1."
            )
        check_writable(out.parent)
        return cls(out.parent, suffix_format, out)

    def save(self, image: Image.Image, metadata: ImageMetadata) -> Path:
        """Write a picture with its settings inside and return its path."""

        def write(file) -> None:
            encode_image_file(image, metadata, self.image_format, file)

        if self.file is not None:
            return write_atomic(self.file, write)
        return write_unique(
            self.folder, f"{slug(metadata.prompt)}_{metadata.seed}", f".{self.image_format}", write
        )
