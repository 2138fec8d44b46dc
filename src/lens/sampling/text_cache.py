"""Text features of prompts on disk, so that a prompt is encoded once for all of its images and seeds.

The key of an entry holds everything that decides the features, down to the token ids of the conversation. No
text is stored. Processes may share the folder. Free of torch until features are read or written.
Letters: T text tokens, E text feature width.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from safetensors import SafetensorError, safe_open

from lens.files import cache_folder, write_bytes_atomic

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lens.models.prompt_template import PromptTemplate

logger = logging.getLogger(__name__)

TextCacheMode = Literal["auto", "on", "off"]
"""Whether text features are cached on disk; "auto" caches those of a large encoder."""

MIN_ENCODER_BYTES = 1_000_000_000
"""Size of the encoder's weights above which "auto" caches: a smaller one loads and encodes in no time."""
DEFAULT_MAX_BYTES = 2_000_000_000
"""Default limit of the cache: hundreds of long prompts of the full model, 23 KB a token."""
MAX_PARTIAL_AGE_S = 24 * 3600
"""Age from which a temporary file is that of a killed process."""

ENTRY_SUFFIX = ".safetensors"


class TextFeatureKey(NamedTuple):
    """Everything that decides the text features of a prompt."""

    encoder_hash: str
    """SHA-256 of the encoder's files."""
    layers: tuple[int, ...]
    computation: str
    """Device, precision and libraries, see `computation_name`."""
    preamble_ids: tuple[int, ...]
    """Token ids before the prompt; they tell date, instructions, chat format and tokenizer apart."""
    prompt_ids: tuple[int, ...]
    """Token ids of the prompt, truncated to what the encoder reads."""
    scaffold_ids: tuple[int, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the key, which names the entry's file."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()


class TextFeatureSource(NamedTuple):
    """What decides text features besides the prompt."""

    encoder_hash: str
    layers: tuple[int, ...]
    computation: str
    template: "PromptTemplate"
    max_sequence_length: int = 512

    def key(self, prompt: str) -> TextFeatureKey:
        """Return the key of a prompt.

        Raises: SettingError where the length leaves no room for a prompt.
        """
        tokens = self.template.tokenize([prompt], self.max_sequence_length)
        ids = tokens.input_ids[0].tolist()
        start, stop = tokens.num_preamble_tokens, len(ids) - len(self.template.scaffold_ids)
        return TextFeatureKey(
            self.encoder_hash, tuple(self.layers), self.computation,
            tuple(ids[:start]), tuple(ids[start:stop]), tuple(ids[stop:]),
        )  # fmt: skip


class TextFeatureCache:
    """Text features in a folder, bounded in bytes; the least recently used entries are removed first.

    An entry that is damaged counts as absent. A folder that cannot be written is logged once and then only
    read.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES):
        self.folder, self.max_bytes = folder, max_bytes
        self.hits = self.misses = 0
        self._is_writable = True

    def get(self, key: TextFeatureKey) -> "list[Tensor] | None":
        """Return the features of a key in main memory, or None.

        Shapes: one (T, E) a layer.
        """
        path = self._path(key)
        try:
            features = _read_entry(path, key)
        except (OSError, SafetensorError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                logger.debug("The cached text features in %s are not usable: %s", path, error)
            self.misses += 1
            return None
        self.hits += 1
        with suppress(OSError):  # a folder that is only read, or an entry that another process removed
            os.utime(path)
        return features

    def put(self, key: TextFeatureKey, features: "Sequence[Tensor]") -> None:
        """Store features; those that are not finite, or larger than the cache, are not stored.

        Shapes: one (T, E) a layer, real tokens only.
        """
        import torch
        from safetensors.torch import save

        rows = [layer.detach().contiguous().cpu() for layer in features]
        if not self._is_writable or not all(bool(torch.isfinite(layer).all()) for layer in rows):
            return
        metadata = {"key": key.digest, "sha256": _checksum(rows)}
        content = save({f"layer_{index}": layer for index, layer in enumerate(rows)}, metadata)
        if len(content) > self.max_bytes:
            return
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)  # features tell of their prompts
            write_bytes_atomic(self._path(key), content, mode=0o600)
            self._remove_oldest()
        except OSError as error:
            self._is_writable = False
            logger.warning("Text features are not cached in %s: %s.", self.folder, error.__cause__ or error)

    def clear(self) -> None:
        """Remove all entries."""
        for path, _, _ in self._entries():
            path.unlink(missing_ok=True)

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def _path(self, key: TextFeatureKey) -> Path:
        return self.folder / f"{key.digest}{ENTRY_SUFFIX}"

    def _entries(self) -> list[tuple[Path, int, float]]:
        """Return path, bytes and time of the last use of each entry; files of others do not count."""
        entries = []
        with suppress(FileNotFoundError):
            for item in os.scandir(self.folder):
                stem, suffix = os.path.splitext(item.name)
                if suffix == ENTRY_SUFFIX and len(stem) == 64:
                    with suppress(FileNotFoundError):  # another process removed it
                        entries.append((Path(item.path), item.stat().st_size, item.stat().st_mtime))
        return entries

    def _remove_oldest(self) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[2], reverse=True)
        num_bytes = 0
        for path, size, _ in entries:
            num_bytes += size
            if num_bytes > self.max_bytes:
                path.unlink(missing_ok=True)
        for partial in self.folder.glob(".*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > MAX_PARTIAL_AGE_S:
                    partial.unlink()


def open_text_cache(
    mode: TextCacheMode, encoder_bytes: int, max_bytes: int = DEFAULT_MAX_BYTES
) -> TextFeatureCache | None:
    """Return the cache in the user's cache folder; None where it is off or "auto" does without."""
    if mode == "off" or (mode == "auto" and encoder_bytes <= MIN_ENCODER_BYTES):
        return None
    return TextFeatureCache(cache_folder() / "text_features", max_bytes)


def encode_with_cache(
    texts: Sequence[str],
    cache: TextFeatureCache | None,
    key_of: Callable[[str], TextFeatureKey],
    encode_missing: "Callable[[list[str]], Iterable[Sequence[Tensor]]]",
) -> "list[list[Tensor]]":
    """Return the features of texts in their order, in main memory; encode those that the cache lacks.

    `encode_missing` takes distinct texts and yields the features of each, which are stored one by one. It is
    not called where nothing is missing, so that it may load the encoder.

    Shapes: one (T, E) a layer for each text, real tokens only.
    """
    features_of = dict[str, "list[Tensor]"]()
    keys = {text: key_of(text) for text in texts} if cache is not None else {}
    for text, key in keys.items():
        if cache is not None and (features := cache.get(key)) is not None:
            features_of[text] = features
    missing = [text for text in dict.fromkeys(texts) if text not in features_of]
    if missing:
        for text, features in zip(missing, encode_missing(missing), strict=True):
            features_of[text] = [layer.detach().cpu() for layer in features]
            if cache is not None:
                cache.put(keys[text], features_of[text])
    return [features_of[text] for text in texts]


def computation_name(device: "torch.device | str", dtype: str, quantization: str | None = None) -> str:
    """Return a name of what decides the rounding of features: device, precision, libraries, threads.

    `quantization` names a precision of the weights other than the stored one, or kernels that round
    differently.
    """
    import torch

    kind = torch.device(device).type
    parts = [kind, dtype, quantization or "as stored"]
    packages = ["torch", "transformers"]
    if quantization is not None:
        packages.append("torchao")
    if kind == "cuda":  # MXFP4 experts are computed by kernels where these packages are there
        packages += ["triton", "kernels"]
        parts.append(torch.cuda.get_device_name(device))
    parts += [f"{package} {_installed_version(package)}" for package in packages]
    if kind == "cpu":
        parts += [torch.backends.cpu.get_cpu_capability(), f"{torch.get_num_threads()} threads"]
    return ", ".join(parts)


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_entry(path: Path, key: TextFeatureKey) -> "list[Tensor]":
    """Return the features of a file.

    Raises: OSError, SafetensorError or ValueError for a file that is missing, damaged or of another key.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        # Copies: a tensor of a map would change with a file that is written over.
        features = [file.get_tensor(f"layer_{index}").clone() for index in range(len(key.layers))]
    if (metadata.get("key"), metadata.get("sha256")) != (key.digest, _checksum(features)):
        raise ValueError("key or checksum differs")
    return features


def _checksum(features: "Sequence[Tensor]") -> str:
    import torch

    checksum = hashlib.sha256()
    for layer in features:
        checksum.update(f"{layer.dtype} {tuple(layer.shape)}".encode())
        checksum.update(layer.contiguous().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
