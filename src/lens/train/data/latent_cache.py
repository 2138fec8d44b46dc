"""Latents and text features of pictures, encoded once and read one sample at a time.

A sample's key says what it was made of: the picture's bytes, the caption, the size that it was cut to, and
the encoders. So what changes is encoded anew, and nothing else is. Shards are safetensors files whose headers
are the index; they are mapped, never loaded whole. Letters: C latent channels, h and w latent cells, L
captured layers, T tokens, E width of a feature.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.writer import write_safetensors

INT8_MAX = 127
"""Of an 8-bit feature."""


class EncodedSample(NamedTuple):
    """What the denoiser sees of one picture."""

    latents: Tensor
    """(C, h, w), bfloat16."""
    features: Tensor
    """(L, T, E), bfloat16, from the prompt's first token on, without padding."""


class TokenCounts(NamedTuple):
    """Tokens of a sample."""

    num_image_tokens: int
    num_text_tokens: int


class LatentCache:
    """A folder of shards; several processes may read it, one writes."""

    def __init__(self, folder: Path, feature_bits: Literal[8, 16] = 16):
        """Read the headers of the shards that are there.

        Raises: CheckpointError for a shard that is damaged.
        """
        self.folder, self._bits = folder, feature_bits
        folder.mkdir(parents=True, exist_ok=True)
        self._shard_of: dict[str, Path] = {}
        self._token_counts: dict[str, TokenCounts] = {}
        self._open_files: dict[Path, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._index_shard(path)

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def __len__(self) -> int:
        return len(self._shard_of)

    def token_counts(self, key: str) -> TokenCounts:
        """Return a sample's tokens without reading it."""
        return self._token_counts[key]

    def latent_size(self, key: str) -> tuple[int, int]:
        """Return the rows and columns of a sample's latents without reading it."""
        _, h, w = self._open_shard(self._shard_of[key]).get_slice(f"{key}.latents").get_shape()
        return h, w

    def add(self, samples: Mapping[str, EncodedSample]) -> None:
        """Write samples as one shard, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for key, sample in samples.items():
            tensors[f"{key}.latents"] = sample.latents.to(torch.bfloat16).contiguous().cpu()
            features = sample.features.to(torch.bfloat16).contiguous().cpu()
            if self._bits == 8:
                features, tensors[f"{key}.scale"] = quantize_int8(features)
            tensors[f"{key}.features"] = features
        name = hashlib.blake2b("".join(samples).encode(), digest_size=12).hexdigest()
        path = self.folder / f"{name}.safetensors"
        write_safetensors(path, tensors)
        self._index_shard(path)

    def __getitem__(self, key: str) -> EncodedSample:
        """Return a sample; its features in bfloat16 however they are stored."""
        file = self._open_shard(self._shard_of[key])
        features = file.get_tensor(f"{key}.features")
        if features.dtype == torch.int8:
            features = dequantize_int8(features, file.get_tensor(f"{key}.scale"))
        return EncodedSample(file.get_tensor(f"{key}.latents"), features)

    def _index_shard(self, path: Path) -> None:
        file = self._open_shard(path)
        for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
            key, _, part = name.rpartition(".")
            if part == "latents":
                self._shard_of[key] = path
                _, h, w = file.get_slice(name).get_shape()
                _, text, _ = file.get_slice(f"{key}.features").get_shape()
                self._token_counts[key] = TokenCounts(h * w, text)

    def _open_shard(self, path: Path) -> Any:
        if path not in self._open_files:
            try:
                self._open_files[path] = safe_open(path, "pt")
            except Exception as error:  # safetensors raises its own type, which it does not export
                raise CheckpointError(
                    f"{path} is damaged ({error}). Delete it: its samples are encoded again."
                ) from error
        return self._open_files[path]


def quantize_int8(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features as int8 and what to multiply them with, a number a token and layer.

    Shapes: (L, T, E) -> (L, T, E), (L, T, 1).
    """
    scale = features.float().abs().amax(-1, keepdim=True).clamp(min=1e-12) / INT8_MAX       # (L, T, 1)
    return (features.float() / scale).round().to(torch.int8), scale


def dequantize_int8(features: Tensor, scale: Tensor) -> Tensor:
    """Undo `in_eight_bits`, up to half a step of 127 of a token's largest value."""
    return (features.float() * scale).to(torch.bfloat16)
