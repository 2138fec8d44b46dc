"""A cache on disk of the latents and text features of nano examples.

A shard holds consecutive examples of one image size, as two files: their pictures (latents and patch labels)
and their captions (text features). The name of each contains a hash of its encoder, so that another encoder
does not read it, and a new text encoder leaves the pictures alone. An interrupted encoding resumes at the
next file.
Letters: N examples, C latent channels, h and w latent cells, T tokens, L captured layers, E their width,
K kinds of patch label.
"""

import copy
import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lens.errors import SettingError
from lens.models.checkpoints.writer import write_safetensors
from lens.models.prompt_template import PromptTemplate, pad_features
from lens.models.vae import encode_pixels
from lens.nano.tasks import FULL_WORLD
from lens.nano.world.scenes import Scene, draw_scene
from lens.train.data.drawn_examples import (
    DrawingTask,
    DrawnPictures,
    World,
    draw_in_processes,
    draw_pictures,
)
from lens.train.data.progress import track
from lens.train.devices import autocast
from lens.train.settings.stages import NANO_EXAMPLES_PER_SHARD

PARTS = ("pictures", "captions")
"""Files of a shard."""
VAE_PRECISION = "bf16"
"""Autocast precision of the autoencoder."""
STORED_DTYPE = torch.bfloat16
"""Dtype of latents and text features on disk."""
EXPORTED_DTYPE = torch.bfloat16
"""Dtype of the encoders in the export of a run."""
ENCODED_TOGETHER = {"cpu": 32, "cuda": 256}
"""Captions or images in a batch of an encoder, by its device."""


@dataclass(frozen=True)
class NanoExampleSource:
    """The nano world that examples come from, and the encoders that turn them into tensors."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    world: World = FULL_WORLD
    seed: int = 0
    layers: tuple[int, ...] | None = None
    """Layers whose features are kept; None for all, so that runs with other layers can share them."""

    def kept_layers(self, layers: Sequence[int]) -> list[int]:
        """Return where the features of some layers are in a shard."""
        return list(layers) if self.layers is None else [self.layers.index(layer) for layer in layers]

    @cached_property
    def pictures_key(self) -> str:
        """A short hash of the weights of the autoencoder, and of a few pictures."""
        pictures = (draw_scene(scene).tobytes() for scene, _ in self._first_examples())
        return _hash(repr(self.world).encode(), *pictures, *_weights(self.vae))

    @cached_property
    def captions_key(self) -> str:
        """A short hash of the weights of the text encoder, of the kept layers, and of a few captions."""
        captions = (caption.encode() for _, caption in self._first_examples())
        return _hash(f"{self.world!r} {self.layers}".encode(), *captions, *_weights(self.text_encoder))

    def _first_examples(self) -> list[tuple[Scene, str]]:
        return [self.world.example(0, item, 128, 128) for item in range(16)]


def _weights(module: torch.nn.Module) -> Iterator[bytes]:
    """Yield the weights as a run exports them, so that an encoder and its export have one key."""
    tensors = (tensor.detach().float().cpu() for tensor in module.state_dict().values())
    return (tensor.to(EXPORTED_DTYPE).view(torch.int16).numpy().tobytes() for tensor in tensors)


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


class NanoBatch(NamedTuple):
    """A batch of cached examples."""

    latents: Tensor
    """(B, C, h, w)."""
    features: list[Tensor]
    """L of (B, T, E)."""
    mask: Tensor
    """(B, T), True for real tokens."""
    labels: Tensor
    """(B, K, h, w), uint8."""
    example_indices: list[int]
    """Indices of the examples, as in `World.example`."""


class CachedBucket:
    """All cached examples of one image size, sorted by the length of their captions."""

    def __init__(self, shards: list[dict[str, Tensor]], layers: Sequence[int] | None, first_shard: int = 0):
        if layers is not None:
            shards = [shard | {"features": shard["features"][list(layers)]} for shard in shards]
        latents = torch.cat([shard["latents"] for shard in shards])                       # (N, C, h, w)
        features = [
            caption
            for shard in shards
            for caption in shard["features"].split(shard["lengths"].tolist(), dim=1)      # each (L, T, E)
        ]
        self._order = sorted(range(len(features)), key=lambda item: features[item].shape[1])
        self._latents, self._features = latents, features
        self._labels = torch.cat([shard["labels"] for shard in shards])                   # (N, K, h, w)
        self._first_example = first_shard * NANO_EXAMPLES_PER_SHARD

    def __len__(self) -> int:
        return len(self._order)

    def sample(self, rng: np.random.Generator, batch_size: int, last_tokens: int = 0) -> NanoBatch:
        """Return a random batch of examples with captions of similar length, which need little padding.

        With `last_tokens`, the features are those of the last tokens of each caption alone.
        """
        window = max(batch_size, len(self) // 8)
        start = rng.integers(0, max(1, len(self) - window + 1))
        positions = start + rng.choice(min(window, len(self)), batch_size, replace=len(self) < batch_size)
        item_indices = [self._order[place] for place in positions]
        rows = [self._features[item][:, -last_tokens:] for item in item_indices]
        features, mask = pad_features([row.unbind(0) for row in rows])
        example_indices = [self._first_example + item for item in item_indices]
        latents, labels = self._latents[item_indices].float(), self._labels[item_indices]
        return NanoBatch(latents, features, mask, labels, example_indices)


class ShardRange(NamedTuple):
    """Consecutive shards of one image size."""

    size_px: tuple[int, int]
    num_shards: int
    first_shard: int = 0

    def check(self) -> None:
        """Raises: SettingError for no shards at all."""
        if self.num_shards < 1:
            needs = f"at least {NANO_EXAMPLES_PER_SHARD} for every image size"
            raise SettingError("examples", self.num_shards * NANO_EXAMPLES_PER_SHARD, needs)


def load_bucket(
    folder: Path, source: NanoExampleSource, size_px: tuple[int, int], layers: Sequence[int], num_shards: int,
    first_shard: int = 0,
) -> CachedBucket:  # fmt: skip
    """Return a bucket of `num_shards` shards, with the features of some layers.

    Missing shards are computed. Several processes can fill one folder together.
    Raises: SettingError for no shards at all.
    """
    shards = ShardRange(size_px, num_shards, first_shard)
    return CachedBucket(load_shards(folder, source, shards), source.kept_layers(layers), first_shard)


def load_shards(folder: Path, source: NanoExampleSource, shards: ShardRange) -> list[dict[str, Tensor]]:
    """Return the tensors of some shards; missing ones are computed.

    Raises: SettingError for no shards at all.
    """
    fill_cache(folder, source, [shards])
    return [_read_shard(folder, source, shards.size_px, shard) for shard in _numbers(shards)]


def fill_cache(
    folder: Path, source: NanoExampleSource, ranges: Sequence[ShardRange], num_processes: int = 0
) -> None:
    """Compute the missing files, all image sizes together.

    With `num_processes`, so many processes draw the pictures while this one encodes them.
    Raises: SettingError for a range without shards.
    """
    for shards in ranges:
        shards.check()
    paths = {
        part: {
            _drawing_task(source, shards.size_px, number): _path(folder, source, part, shards.size_px, number)
            for shards in ranges
            for number in _numbers(shards)
        }
        for part in PARTS
    }
    pictures = _missing(paths["pictures"])
    drawn = draw_in_processes(pictures, num_processes) if num_processes else map(draw_pictures, pictures)
    for task in track(pictures, "Encoding pictures of the nano world", disable=not pictures):
        drawing = next(drawn)
        if not paths["pictures"][task].is_file():
            write_safetensors(paths["pictures"][task], _encode_pictures(source.vae, drawing))
    captions = _missing(paths["captions"])
    for task in track(captions, "Encoding captions of the nano world", disable=not captions):
        if not paths["captions"][task].is_file():
            write_safetensors(paths["captions"][task], _encode_captions(source, task.captions()))


def _missing(paths: Mapping[DrawingTask, Path]) -> list[DrawingTask]:
    missing = [task for task, path in paths.items() if not path.is_file()]
    random.Random(os.getpid()).shuffle(missing)  # so that two processes seldom compute the same one
    return missing


def _numbers(shards: ShardRange) -> range:
    return range(shards.first_shard, shards.first_shard + shards.num_shards)


def _path(
    folder: Path, source: NanoExampleSource, part: str, size_px: tuple[int, int], shard: int
) -> Path:
    key = getattr(source, f"{part}_key")
    return folder / f"{part}_{key}_{source.seed}_{size_px[0]}x{size_px[1]}_{shard:05d}.safetensors"


def _drawing_task(source: NanoExampleSource, size_px: tuple[int, int], shard: int) -> DrawingTask:
    numbers = range(shard * NANO_EXAMPLES_PER_SHARD, (shard + 1) * NANO_EXAMPLES_PER_SHARD)
    return DrawingTask(source.world, source.seed, numbers, size_px)


def _read_shard(
    folder: Path, source: NanoExampleSource, size_px: tuple[int, int], shard: int
) -> dict[str, Tensor]:
    files = (load_file(_path(folder, source, part, size_px, shard)) for part in PARTS)
    return {name: tensor for tensors in files for name, tensor in tensors.items()}


@torch.no_grad()
def _encode_pictures(vae: Any, drawn: DrawnPictures) -> dict[str, Tensor]:
    pixels = torch.from_numpy(drawn.pixels).split(_batch_size(vae))                            # (n, 3, H, W)
    latents = torch.cat([_encode_latents(vae, part) for part in pixels])                       # (N, C, h, w)
    return {"latents": latents.to(STORED_DTYPE).cpu(), "labels": torch.from_numpy(drawn.labels)}


def _batch_size(encoder: torch.nn.Module) -> int:
    return ENCODED_TOGETHER[next(encoder.parameters()).device.type]


@torch.no_grad()
def _encode_captions(source: NanoExampleSource, captions: list[str]) -> dict[str, Tensor]:
    """Encode captions in batches of similar length, after one preamble."""
    encoder, template = source.text_encoder, PromptTemplate(source.tokenizer)
    layers = range(encoder.config.num_hidden_layers) if source.layers is None else source.layers
    preamble = encoder.prefill(torch.tensor([template.preamble_ids]), layers)
    order = sorted(range(len(captions)), key=lambda item: len(captions[item].encode()))
    rows: dict[int, Tensor] = {}
    together = _batch_size(encoder)
    for start in range(0, len(order), together):
        some = order[start : start + together]
        batch = template.tokenize([captions[item] for item in some])
        past = copy.deepcopy(preamble)
        past.batch_repeat_interleave(len(some))
        ids = batch.input_ids[:, batch.num_preamble_tokens :]
        features = torch.stack(encoder.text_features(ids, batch.attention_mask, layers, past))  # (L, n, T, E)
        lengths = batch.attention_mask.sum(1) - batch.num_preamble_tokens
        for place, item in enumerate(some):
            rows[item] = features[:, place, : int(lengths[place])].to(STORED_DTYPE)
    in_order = [rows[item] for item in range(len(captions))]
    return {
        "features": torch.cat(in_order, dim=1).cpu(),                                       # (L, sum of T, E)
        "lengths": torch.tensor([row.shape[1] for row in in_order]),
    }


def _encode_latents(vae: torch.nn.Module, pixels: Tensor) -> Tensor:
    device = next(vae.parameters()).device
    # This memory format is faster for convolutions on a CPU: 7.0 instead of 11.2 ms per image.
    pixels = pixels.to(device, memory_format=torch.channels_last)
    with autocast(device, VAE_PRECISION):
        return encode_pixels(vae, pixels).float()  # type: ignore[arg-type]
