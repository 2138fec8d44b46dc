"""WebDataset shards: tars whose bytes depend on their samples alone, written whole or not at all.

The same samples give the same bytes, whichever process writes them and when. Knows nothing of buckets,
scores or captions. Letters: none.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lens.errors import LensError
from lens.files import write_atomic

FILE_MODE = 0o644


class ShardInfo(NamedTuple):
    """A shard that is complete."""

    path: Path
    num_samples: int
    num_bytes: int
    sha256: str


class ShardError(LensError, ValueError):
    """A shard that is missing, cut off, or not what its checksum says."""


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardInfo:
    """Write samples, each a key and its files by extension, to a tar; return what was written.

    The tar is complete as soon as it has its name.
    Raises: ValueError for a key that is used twice or would not stay one file name.
    """
    seen: set[str] = set()

    def write(raw: BinaryIO) -> None:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, files in samples:
                if key in seen or not key or "." in key or "/" in key:
                    raise ValueError(f"{key!r} is no key of a sample, or one that was used before")
                seen.add(key)
                for extension in sorted(files):
                    _add_member(tar, f"{key}.{extension}", files[extension])

    write_atomic(path, write)
    return ShardInfo(path, len(seen), path.stat().st_size, checksum(path))


def read_shard(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a tar in its order: key, files by extension.

    Members are read one by one and never unpacked to disk, whatever their names say.
    Raises: ShardError for a tar that ends early or is none.
    """
    key, files = None, {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, _, extension = member.name.rpartition("/")[2].partition(".")
                if stem != key and key is not None:
                    yield key, files
                if stem != key:
                    key, files = stem, {}
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                if len(content) != member.size:
                    raise ShardError(f"{path} ends inside {member.name}. Build it again.")
                files[extension] = content
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{path} is no complete tar ({error}). Build it again.") from error
    if key is not None:
        yield key, files


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return a JSON object as bytes that depend on its contents alone."""
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its owner, group and time are zero already
    member.size, member.mode = len(content), FILE_MODE
    tar.addfile(member, io.BytesIO(content))
