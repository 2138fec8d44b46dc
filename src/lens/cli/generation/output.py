"""Where pictures go: a folder, under names that say what they show, or the one file that was named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

from lens.errors import SettingError
from lens.sampling.image_metadata import (
    FORMAT_OF_SUFFIX,
    PictureSettings,
    check_writable,
    encode_picture,
    slug,
    write_new,
    write_over,
)


@dataclass(frozen=True)
class Target:
    """A folder and a format; for a single picture perhaps the exact file."""

    folder: Path
    picture_format: str
    file: Path | None = None

    @classmethod
    def of(cls, out: Path | None, picture_format: str | None, like: Path | None, num_pictures: int) -> Self:
        """Return the target that --out and --format mean, known to be writable.

        A name that ends like a picture is a file, anything else a folder; --like hands on its format.
        Raises: SettingError where they contradict each other or nothing can be written there.
        """
        like_format = FORMAT_OF_SUFFIX.get(like.suffix.lower()) if like else None
        if out is None or out.is_dir() or not out.suffix:
            folder = out or Path()
            check_writable(folder)
            return cls(folder, picture_format or like_format or "png")
        suffix_format = FORMAT_OF_SUFFIX.get(out.suffix.lower())
        if suffix_format is None:
            known = ", ".join(FORMAT_OF_SUFFIX)
            fix = f"A new folder's name may not have a dot; or make {out} first."
            raise SettingError("--out", str(out), f"a folder, or a file name that ends in {known}", fix)
        if picture_format not in (None, suffix_format):
            raise SettingError(
                "--format", picture_format, f"to agree with --out {out.name}", "Leave one of them out."
            )
        if num_pictures > 1:
            raise SettingError(
                "--out", str(out), f"a folder for {num_pictures} pictures", "Give one, or --count 1."
            )
        check_writable(out.parent)
        return cls(out.parent, suffix_format, out)

    def save(self, image: Image.Image, settings: PictureSettings) -> Path:
        """Write a picture with its settings inside and return its path."""

        def write(file) -> None:
            encode_picture(image, settings, self.picture_format, file)

        if self.file is not None:
            return write_over(self.file, write)
        return write_new(
            self.folder, f"{slug(settings.prompt)}_{settings.seed}", f".{self.picture_format}", write
        )
