"""What an image of --like records: files, which must have the same content, and versions of libraries."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from lens.errors import LensError

if TYPE_CHECKING:
    from lens.sampling.image_metadata import FileRecord, ImageMetadata

logger = logging.getLogger(__name__)


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
