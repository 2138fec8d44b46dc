"""Time training on a stream of pictures of mixed sizes against a plain baseline, in one run.

The baseline does what a first script would: it encodes texts as they come, and pads every picture and every
caption of a batch to the largest. Ours reads a store, and packs. Both train the same nano denoiser on the
same pictures in the same order; latents are ready for both. Steps take turns, so both meet the same load.

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

from lens.core.latents import pack_latents
from lens.core.resolution import buckets_for
from lens.data.image_text_dataset import ImageTextSample
from lens.models.checkpoints.registry import resolve_model
from lens.models.denoiser import LensTransformer2DModel
from lens.models.prompt_template import encode_prompts
from lens.nano.tasks import training_example
from lens.nano.world.scenes import draw_scene
from lens.train.data.encode import Encoders, encode_into_cache
from lens.train.data.latent_cache import LatentCache

LEAST_RATIO = 1.5
LAYERS = (0, 1, 2, 3)


def main() -> int:
    asked = parsed()
    torch.set_num_threads(asked.threads)
    model = resolve_model("lens-nano")
    encoders = Encoders(model, LAYERS, torch.device("cpu"), torch.float32)
    pictures = stream(asked.steps * asked.batch, asked.bases)
    with tempfile.TemporaryDirectory() as where:
        store = LatentCache(Path(where))
        keys = encode_into_cache(store, encoders, pictures)
        captions = {encoders.cache_key(picture): picture.caption for picture in pictures}
        batches = [keys[start : start + asked.batch] for start in range(0, len(keys), asked.batch)]
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
                # The first step of each makes its optimizer's state and fills the caches.
                seconds[name] += (time.perf_counter() - started_at) if number else 0.0
    num_timed = (len(batches) - 1) * asked.batch
    tokens = sum(
        sum(store_lengths) for store_lengths in (store.token_counts(key) for key in keys[asked.batch :])
    )
    print(f"torch {torch.__version__}, {asked.threads} thread(s), bf16 autocast, bases {asked.bases}, "
          f"batches of {asked.batch}, {num_timed} pictures timed")
    print(f"{'':<28}{'samples/s':>10}{'real tokens/s':>15}{'ratio':>8}")
    base = seconds["padded, texts on the fly"]
    for name, spent in seconds.items():
        print(f"{name:<28}{num_timed / spent:>10.1f}{tokens / spent:>15,.0f}{base / spent:>8.2f}")
    ratio = base / seconds["packed, texts stored"]
    if ratio < LEAST_RATIO:
        print(f"MISSED: needs {LEAST_RATIO}x the samples a second of the baseline")
        return 1
    return 0


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--bases", type=int, nargs="+", default=[128, 192, 256])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def stream(count: int, bases: list[int]) -> list[ImageTextSample]:
    """Return pictures of the nano world in all sizes of the bases, in an order drawn once."""
    rng = np.random.default_rng(0)
    sizes = [size for base in bases for size in buckets_for(base).values()]
    pictures = []
    for number in range(count):
        scene, caption = training_example(0, number, *sizes[rng.integers(len(sizes))])
        pixels = ((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        pictures.append(ImageTextSample(str(number), caption, Image.fromarray(pixels)))
    return pictures


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
    """Train on a batch whose pictures and captions are padded to the largest."""
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
        velocity = run.denoiser(
            pack_latents(noisy), features, mask, t, [(1, h, w)], return_dict=False
        )[0]  # fmt: skip
    error = (velocity.float() - pack_latents(noise - clean)).square().mean(-1) * real.flatten(1)
    run.update((error.sum(1) / real.flatten(1).sum(1)).mean())


def packed(run: Trained, store: LatentCache, batch: list[str]) -> None:
    """Train on a batch as one packed sequence."""
    samples = [store[key] for key in batch]
    clean = [pack_latents(sample.latents.float()[None])[0] for sample in samples]
    noise = [torch.randn(one.shape, generator=run.draw) for one in clean]
    t = torch.rand(len(batch), generator=run.draw)
    noisy = [torch.lerp(one, eps, time) for one, eps, time in zip(clean, noise, t, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):
        velocity = run.denoiser(
            noisy, [list(sample.features) for sample in samples], None, t,
            [(1, *sample.latents.shape[1:]) for sample in samples], return_dict=False,
        )[0]  # fmt: skip
    errors = [
        (v.float() - (eps - one)).square().mean() for v, eps, one in zip(velocity, noise, clean, strict=True)
    ]
    run.update(torch.stack(errors).mean())


if __name__ == "__main__":
    raise SystemExit(main())
