"""The frozen encoders of a model, and the store of what they make of pictures and captions.

Letters: C latent channels, h and w latent cells, L captured layers, T tokens, E width, H and W pixels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from lens.data.image_text_dataset import Captioned
from lens.models.checkpoints.diffusers_folder import component_folder
from lens.models.prompt_template import encode_prompts
from lens.models.vae import encode_pixels
from lens.train.data.latent_cache import Sample, Store

SHARD = 256
"""Samples a shard of a store."""
EDGE_BYTES = 2**20
"""Of a weight file's start and end, which with its size tell one revision from another."""


class Encoders:
    """Autoencoder, text encoder and tokenizer of a model folder."""

    def __init__(self, folder: Path, layers: Sequence[int], device: torch.device, dtype: torch.dtype):
        from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
        from transformers import PreTrainedTokenizerFast

        from lens.models.text_encoder import load_text_encoder

        self.vae: Any = AutoencoderKLFlux2.from_pretrained(
            component_folder(folder, "vae"), torch_dtype=dtype
        )
        self.text_encoder: Any = load_text_encoder(component_folder(folder, "text_encoder"), dtype)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(component_folder(folder, "tokenizer"))
        for frozen in (self.vae, self.text_encoder):
            frozen.eval().requires_grad_(False).to(device)
        self.layers, self._device = tuple(layers), device
        self.revision = _revision(folder, (*map(str, self.layers), str(dtype)))

    @torch.no_grad()
    def encode(self, image: Image.Image, caption: str) -> Sample:
        """Return what the denoiser sees of a picture; by itself, so that nothing depends on a batch."""
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]              # (1, 3, H, W)
        latents = encode_pixels(self.vae, pixels.to(self._device).float() / 127.5 - 1)          # (1, C, h, w)
        return Sample(latents[0].to(torch.bfloat16).cpu(), self.features(caption))

    @torch.no_grad()
    def features(self, caption: str) -> Tensor:
        """Return the text features of a caption, (L, T, E)."""
        return self.features_of([caption])[0]

    @torch.no_grad()
    def features_of(self, captions: Sequence[str]) -> list[Tensor]:
        """Return the text features of captions that go through the encoder together, each (L, T, E)."""
        features, mask = encode_prompts(
            self.text_encoder, self.tokenizer, captions, self.layers, prompts_per_pass=len(captions)
        )
        stacked = torch.stack(features).to(torch.bfloat16).cpu()                                # (L, N, T, E)
        return [stacked[:, row, :length] for row, length in enumerate(mask.sum(1).tolist())]

    def key(self, picture: Captioned) -> str:
        """Return the name of a picture's sample in a store."""
        size = f"{picture.image.width}x{picture.image.height}"
        parts = (picture.id, picture.caption, size, self.revision)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def fill(store: Store, encoders: Encoders, pictures: Iterable[Captioned]) -> list[str]:
    """Encode the pictures that the store lacks and return the keys of all, each once, in their order.

    Interrupted, the work goes on at the shard that it was in.
    """
    keys: dict[str, None] = {}
    waiting: dict[str, Sample] = {}
    for picture in track(pictures, f"Encoding into {store.folder.name}"):
        key = encoders.key(picture)
        if key not in store and key not in keys:
            waiting[key] = encoders.encode(picture.image, picture.caption)
        keys[key] = None
        if len(waiting) == SHARD:
            store.add(waiting)
            waiting = {}
    if waiting:
        store.add(waiting)
    return list(keys)


def _revision(folder: Path, more: Iterable[str]) -> str:
    """Return a hash of the encoders' files, by their sizes and edges: a text encoder has many gigabytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in ("vae", "text_encoder", "tokenizer"):
        for path in sorted(component_folder(folder, part).glob("*")):
            size = path.stat().st_size
            digest.update(f"{part}/{path.name}/{size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(EDGE_BYTES))
                file.seek(max(0, size - EDGE_BYTES))
                digest.update(file.read(EDGE_BYTES))
    digest.update("\0".join(more).encode())
    return digest.hexdigest()
