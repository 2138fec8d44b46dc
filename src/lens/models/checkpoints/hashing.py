"""SHA-256 of files and of model folders, which the metadata of an image records.

The hash of a large file is cached under the file's path, size and time of change.
"""

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path

from lens.files import FileWriteError, cache_folder, write_bytes_atomic
from lens.models.checkpoints.diffusers_folder import shared_components
from lens.text_files import TextError, parse_json

MODEL_SUFFIXES = {".json", ".jinja", ".safetensors", ".gguf", ".txt"}
MIN_CACHED_HASH_BYTES = 256 * 2**20


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    real = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", real.name):  # the hub's cache names large files by SHA-256
        return real.name
    if real.stat().st_size < MIN_CACHED_HASH_BYTES:
        return _read_and_hash(real)
    return _cached_hash(real)


def weights_hash(path: Path) -> str | None:
    """Return the SHA-256 of a safetensors file behind its header; None for a folder or another file.

    Other tools look LoRAs up by it, as AutoV3: notes in the header change it not.
    """
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """Return one hash of a model: of its single file, or of the names and hashes of its folder's files.

    Files of shared components count as if they were inside the folder.
    """
    if path.is_file():
        return file_hash(path)
    roots = {Path(): path} | {Path(name): there for name, there in shared_components(path).items()}
    files = {
        inside / file.relative_to(root): file
        for inside, root in roots.items()
        for file in root.rglob("*")
        if file.suffix in MODEL_SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    }
    lines = [f"{name.as_posix()} {file_hash(files[name])}" for name in sorted(files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_and_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached_hash(path: Path) -> str:
    stat = path.stat()
    key = f"{path} {stat.st_size} {stat.st_mtime_ns}"
    store = cache_folder() / "file_hashes.json"
    try:
        known = parse_json(store.read_bytes())
    except (OSError, TextError):
        known = {}
    known = known if isinstance(known, dict) else {}
    if key not in known:
        known[key] = _read_and_hash(path)
        with suppress(FileWriteError):  # a read-only home: the file is hashed again next time
            write_bytes_atomic(store, json.dumps(known, indent=1).encode())
    return known[key]
