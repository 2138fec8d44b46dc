"""WebDataset shards: tars whose bytes depend on their samples alone, written atomically.

The same samples give the same bytes in any process. Knows nothing of buckets, scores or captions.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lens.errors import LensError
from lens.files import write_atomic

FILE_MODE = 0o644


class ShardInfo(NamedTuple):
    """A complete shard."""

    path: Path
    num_samples: int
    num_bytes: int
    sha256: str


class ShardError(LensError, ValueError):
    """A shard that is missing, truncated, or does not match its checksum."""


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardInfo:
    """Write samples, each a key and its files by extension, to a tar; return what was written.

    The tar is complete once it has its name.
    Raises: ValueError for a key that is used twice, is empty, or has a dot or a slash.
    """
    seen: set[str] = set()

    def write(raw: BinaryIO) -> None:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, files in samples:
                if key in seen or not key or "." in key or "/" in key:
                    raise ValueError(f"{key!r} is not a valid key of a sample, or was used before")
                seen.add(key)
                for extension in sorted(files):
                    _add_member(tar, f"{key}.{extension}", files[extension])

    write_atomic(path, write)
    return ShardInfo(path, len(seen), path.stat().st_size, checksum(path))


def read_shard(
    path: Path, is_read: Callable[[str], bool] = lambda extension: True
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a tar in its order: key, files by extension.

    The files of extensions that `is_read` refuses come empty: to skip images makes a pass much faster.
    Members are read one by one and never unpacked to disk, whatever their names are.
    Raises: ShardError for a file that is truncated or not a tar.
    """
    key, files = None, {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, extension = split_member_name(member.name)
                # A second image under the same key is a sample of its own.
                is_new = stem != key or extension in files
                if is_new and key is not None:
                    yield key, files
                if is_new:
                    key, files = stem, {}
                if not is_read(extension):
                    files[extension] = b""
                    continue
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                if len(content) != member.size:
                    raise ShardError(f"{path} ends inside {member.name}. Build it again.")
                files[extension] = content
            if reason := find_break(path, tar.offset):
                raise tarfile.ReadError(reason)
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{path} is not a complete tar ({error}). Build it again.") from error
    if key is not None:
        yield key, files


def find_break(path: Path, end: int) -> str:
    """Return what is wrong at the end of a tar whose last member ends at `end`; empty for a whole tar.

    tarfile takes a damaged header, and the end of the first of two tars in one file, for the end of all.
    """
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):
            return f"the header at byte {end} is damaged"
        if not block:
            return f"there is no end mark at byte {end}"
        while chunk := file.read(2**20):
            if chunk.strip(b"\0"):
                return f"data follows the end mark at byte {end}"
    return ""


def split_member_name(name: str) -> tuple[str, str]:
    """Return the key of a member's sample, folder included, and the extension in lower case.

    The extension begins after the first dot of the file's name: that of `a/key.brief.txt` is `brief.txt`.
    """
    folder, slash, file_name = name.rpartition("/")
    stem, _, extension = file_name.partition(".")
    return folder + slash + stem, extension.lower()


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return a JSON object as bytes that depend on its contents alone."""
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its owner, group and time are zero already
    member.size, member.mode = len(content), FILE_MODE
    tar.addfile(member, io.BytesIO(content))
