"""A cache on disk of the latents and text features of images.

The key of a sample is a hash of its sources: image, caption, image size and encoders. A sample is encoded
again only if one of them changes. Shards are memory-mapped safetensors files whose headers are the index.
Letters: C latent channels, h and w latent cells, L captured layers, T tokens, E width of a feature.
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
"""Largest absolute value of an 8-bit feature."""


class EncodedSample(NamedTuple):
    """The denoiser's inputs from one image and its caption."""

    latents: Tensor
    """(C, h, w), bfloat16."""
    features: Tensor
    """(L, T, E), bfloat16, from the first token of the prompt, without padding."""


class TokenCounts(NamedTuple):
    """Numbers of tokens of a sample."""

    num_image_tokens: int
    num_text_tokens: int


class LatentCache:
    """A folder of shards. Several processes may read it, while one writes."""

    def __init__(self, folder: Path, feature_bits: Literal[8, 16] = 16):
        """Read the headers of the existing shards.

        Raises: CheckpointError for a damaged shard.
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
        """Return the token counts of a sample without reading it."""
        return self._token_counts[key]

    def latent_size(self, key: str) -> tuple[int, int]:
        """Return the rows and columns of a sample's latents without reading them."""
        _, h, w = self._open_shard(self._shard_of[key]).get_slice(f"{key}.latents").get_shape()
        return h, w

    def add(self, samples: Mapping[str, EncodedSample]) -> None:
        """Write samples as one shard, atomically."""
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
        """Return a sample, with its features in bfloat16."""
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
                    f"{path} is damaged ({error}). Delete it; its samples are then encoded again."
                ) from error
        return self._open_files[path]


def quantize_int8(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features as int8, and their scale for each token and layer.

    Shapes: (L, T, E) -> (L, T, E), (L, T, 1).
    """
    scale = features.float().abs().amax(-1, keepdim=True).clamp(min=1e-12) / INT8_MAX       # (L, T, 1)
    return (features.float() / scale).round().to(torch.int8), scale


def dequantize_int8(features: Tensor, scale: Tensor) -> Tensor:
    """Undo `quantize_int8`, with an error of at most 1/254 of a token's largest value."""
    return (features.float() * scale).to(torch.bfloat16)
