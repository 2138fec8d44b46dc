"""Training speed on images of mixed sizes, against a plain baseline.

The baseline encodes texts during training, and pads all images and captions of a batch to the largest. Ours
reads cached features and packs. Both train the same nano denoiser on the same images in the same order, with
cached latents. Their steps alternate, so that both meet the same load of the machine.

    python benchmarks/train_speed.py [--steps 12] [--batch 12] [--bases 128 192 256]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from lens.core.resolution import buckets_for
from lens.data.image_text_dataset import ImageTextSample
from lens.models.checkpoints.registry import resolve_model
from lens.models.denoiser import LensTransformer2DModel
from lens.models.prompt_template import encode_prompts
from lens.models.velocity import predict_velocity
from lens.nano.tasks import training_example
from lens.nano.world.scenes import draw_scene
from lens.train.data.encode import Encoders, encode_into_cache
from lens.train.data.latent_cache import LatentCache

LEAST_RATIO = 1.5
LAYERS = (0, 1, 2, 3)


def main() -> int:
    options = parse_options()
    torch.set_num_threads(options.threads)
    model = resolve_model("lens-nano")
    encoders = Encoders(model, LAYERS, torch.device("cpu"), torch.float32)
    images = stream(options.steps * options.batch, options.bases)
    with tempfile.TemporaryDirectory() as where:
        store = LatentCache(Path(where))
        keys = encode_into_cache(store, encoders, images)
        captions = {encoders.cache_key(image): image.caption for image in images}
        batches = [keys[start : start + options.batch] for start in range(0, len(keys), options.batch)]
        kinds = {
            "padded, texts on the fly": lambda run, batch: padded(run, store, batch, encoders, captions),
            "padded, texts stored": lambda run, batch: padded(run, store, batch),
            "packed, texts stored": lambda run, batch: packed(run, store, batch),
        }
        runs = {name: Trained(model) for name in kinds}
        seconds = dict.fromkeys(kinds, 0.0)
        for number, batch in enumerate(batches):
            for name, step in kinds.items():
                started_at = time.perf_counter()
                step(runs[name], batch)
                # The first step of each creates its optimizer state and fills the caches.
                seconds[name] += (time.perf_counter() - started_at) if number else 0.0
    num_timed = (len(batches) - 1) * options.batch
    tokens = sum(
        sum(store_lengths) for store_lengths in (store.token_counts(key) for key in keys[options.batch :])
    )
    print(f"torch {torch.__version__}, {options.threads} thread(s), bf16 autocast, bases {options.bases}, "
          f"batches of {options.batch}, {num_timed} images timed")
    print(f"{'':<28}{'samples/s':>10}{'real tokens/s':>15}{'ratio':>8}")
    base = seconds["padded, texts on the fly"]
    for name, spent in seconds.items():
        print(f"{name:<28}{num_timed / spent:>10.1f}{tokens / spent:>15,.0f}{base / spent:>8.2f}")
    ratio = base / seconds["packed, texts stored"]
    if ratio < LEAST_RATIO:
        print(f"FAILED: at least {LEAST_RATIO}x the samples per second of the baseline are needed")
        return 1
    return 0


def parse_options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--bases", type=int, nargs="+", default=[128, 192, 256])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def stream(count: int, bases: list[int]) -> list[ImageTextSample]:
    """Return images of the nano world in all sizes of the bases, in a fixed random order."""
    rng = np.random.default_rng(0)
    sizes = [size for base in bases for size in buckets_for(base).values()]
    images = []
    for number in range(count):
        scene, caption = training_example(0, number, *sizes[rng.integers(len(sizes))])
        pixels = ((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        images.append(ImageTextSample(str(number), caption, Image.fromarray(pixels)))
    return images


class Trained:
    """A denoiser and its optimizer."""

    def __init__(self, model: Path):
        self.denoiser = LensTransformer2DModel.from_pretrained(model / "transformer").train()
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=1e-5, fused=True)
        self.draw = torch.Generator().manual_seed(0)

    def update(self, loss: torch.Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def padded(run: Trained, store: LatentCache, batch: list[str], encoders=None, captions=None) -> None:
    """Train on a batch whose images and captions are padded to the largest."""
    latents = [store[key].latents.float() for key in batch]
    if encoders is None:
        rows = [store[key].features for key in batch]
        longest = max(row.shape[1] for row in rows)
        stacked = torch.stack([F.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])
        features = list(stacked.float().unbind(1))
        mask = torch.tensor([[place < row.shape[1] for place in range(longest)] for row in rows])
    else:
        with torch.no_grad():
            features, mask = encode_prompts(
                encoders.text_encoder, encoders.tokenizer, [captions[key] for key in batch], LAYERS,
                batch_size=len(batch),
            )  # fmt: skip
    h, w = (max(one.shape[side] for one in latents) for side in (1, 2))
    clean = torch.stack([F.pad(one, (0, w - one.shape[2], 0, h - one.shape[1])) for one in latents])
    real = torch.stack([
        F.pad(torch.ones(one.shape[1:]), (0, w - one.shape[2], 0, h - one.shape[1])) for one in latents
    ])  # (B, h, w)
    noise, t = torch.randn(clean.shape, generator=run.draw), torch.rand(len(batch), generator=run.draw)
    noisy = torch.lerp(clean, noise, t[:, None, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        velocity = predict_velocity(run.denoiser, noisy, t, features, mask)                    # (B, C, h, w)
    error = (velocity - (noise - clean)).square().mean(1).flatten(1) * real.flatten(1)
    run.update((error.sum(1) / real.flatten(1).sum(1)).mean())


def packed(run: Trained, store: LatentCache, batch: list[str]) -> None:
    """Train on a batch as one packed sequence."""
    samples = [store[key] for key in batch]
    clean = [sample.latents.float() for sample in samples]                                  # B of (C, h, w)
    noise = [torch.randn(one.shape, generator=run.draw) for one in clean]
    t = torch.rand(len(batch), generator=run.draw)
    noisy = [torch.lerp(one, eps, time) for one, eps, time in zip(clean, noise, t, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):
        velocity = predict_velocity(run.denoiser, noisy, t, [list(sample.features) for sample in samples])
    errors = [
        (v - (eps - one)).square().mean() for v, eps, one in zip(velocity, noise, clean, strict=True)
    ]
    run.update(torch.stack(errors).mean())


if __name__ == "__main__":
    raise SystemExit(main())
