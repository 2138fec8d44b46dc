"""The frozen encoders of a model, and the encoding of images and captions into a latent cache.

Letters: C latent channels, h and w latent cells, L captured layers, T tokens, E width, H and W pixels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lens.data.image_text_dataset import ImageTextSample
from lens.models.checkpoints.diffusers_folder import component_folder
from lens.models.checkpoints.writer import clear_name_or_path
from lens.models.prompt_date import PINNED_DATE
from lens.models.prompt_template import encode_prompts
from lens.models.vae import encode_pixels
from lens.sampling.resolved_model import ResolvedModel
from lens.train.data.latent_cache import EncodedSample, LatentCache
from lens.train.data.progress import track

SAMPLES_PER_SHARD = 256
"""Samples in a shard of a latent cache."""
FINGERPRINT_BYTES = 2**20
"""Bytes at the start and the end of a weight file that, with its size, identify a revision."""


def load_encoders(
    vae: Path, text_encoder: Path, tokenizer: Path, device: torch.device, dtype: torch.dtype
) -> tuple[Any, Any, Any]:
    """Return a frozen autoencoder, a frozen text encoder and a tokenizer, each from its folder."""
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
    from transformers import PreTrainedTokenizerFast

    from lens.models.checkpoints.text_encoder import load_text_encoder_folder

    loaded_vae: Any = AutoencoderKLFlux2.from_pretrained(vae, torch_dtype=dtype)
    clear_name_or_path(loaded_vae)
    loaded_text_encoder: Any = load_text_encoder_folder(text_encoder, dtype)
    for frozen in (loaded_vae, loaded_text_encoder):
        frozen.eval().requires_grad_(False).to(device)
    return loaded_vae, loaded_text_encoder, PreTrainedTokenizerFast.from_pretrained(tokenizer)


class Encoders:
    """Autoencoder, text encoder and tokenizer of a model folder."""

    def __init__(self, folder: Path, layers: Sequence[int], device: torch.device, dtype: torch.dtype):
        vae, text_encoder, tokenizer = (
            component_folder(folder, part) for part in ("vae", "text_encoder", "tokenizer")
        )
        self.vae, self.text_encoder, self.tokenizer = load_encoders(
            vae, text_encoder, tokenizer, device, dtype
        )
        self.layers, self._device = tuple(layers), device
        self.prompt_date = ResolvedModel(str(folder), folder).prompt_date
        # Features of the pinned date have no mark of it, so that caches of older versions are read.
        date = [self.prompt_date] if self.prompt_date != PINNED_DATE else []
        self.revision = _encoder_revision(folder, (*map(str, self.layers), str(dtype), *date))

    @torch.no_grad()
    def encode(self, image: Image.Image, caption: str) -> EncodedSample:
        """Return the latents and text features of one image, encoded alone to be independent of any batch."""
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]              # (1, 3, H, W)
        latents = encode_pixels(self.vae, pixels.to(self._device).float() / 127.5 - 1)          # (1, C, h, w)
        return EncodedSample(latents[0].to(torch.bfloat16).cpu(), self.encode_caption(caption))

    @torch.no_grad()
    def encode_caption(self, caption: str) -> Tensor:
        """Return the text features of a caption, (L, T, E)."""
        return self.encode_captions([caption])[0]

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> list[Tensor]:
        """Return the text features of captions, encoded as one batch, each (L, T, E)."""
        features, mask = encode_prompts(
            self.text_encoder, self.tokenizer, captions, self.layers,
            batch_size=len(captions), date=self.prompt_date,
        )  # fmt: skip
        stacked = torch.stack(features).to(torch.bfloat16).cpu()                                # (L, N, T, E)
        return [stacked[:, row, :length] for row, length in enumerate(mask.sum(1).tolist())]

    def cache_key(self, sample: ImageTextSample) -> str:
        """Return the key of a sample in a latent cache."""
        size = f"{sample.image.width}x{sample.image.height}"
        parts = (sample.id, sample.caption, size, self.revision)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def encode_into_cache(
    cache: LatentCache, encoders: Encoders, samples: Iterable[ImageTextSample]
) -> list[str]:
    """Encode the samples that the cache lacks; return the keys of all samples in order, each once.

    An interrupted encoding resumes at its last shard.
    """
    keys: dict[str, None] = {}
    pending: dict[str, EncodedSample] = {}
    for sample in track(samples, f"Encoding into {cache.folder.name}"):
        key = encoders.cache_key(sample)
        if key not in cache and key not in keys:
            pending[key] = encoders.encode(sample.image, sample.caption)
        keys[key] = None
        if len(pending) == SAMPLES_PER_SHARD:
            cache.add(pending)
            pending = {}
    if pending:
        cache.add(pending)
    return list(keys)


def _encoder_revision(folder: Path, extra: Iterable[str]) -> str:
    """Return a hash of the encoders' files, from sizes and edges, as a text encoder has many gigabytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in ("vae", "text_encoder", "tokenizer"):
        for path in sorted(component_folder(folder, part).glob("*")):
            size = path.stat().st_size
            digest.update(f"{part}/{path.name}/{size}".encode())
            with path.open("rb") as file:
                digest.update(file.read(FINGERPRINT_BYTES))
                file.seek(max(0, size - FINGERPRINT_BYTES))
                digest.update(file.read(FINGERPRINT_BYTES))
    digest.update("\0".join(extra).encode())
    return digest.hexdigest()
