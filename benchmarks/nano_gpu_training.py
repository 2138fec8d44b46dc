"""Speed of the nano denoiser's training: examples from main memory, resident, captured, compiled.

The examples are random tensors of the shapes of the recipe; no encoder is loaded. Everything else is as in a
run: batches, losses, update, guard, moving average. Each way trains the same steps twice, and the second time
is measured, when each shape has been captured and compiled.

    PYTHONPATH=src python3 benchmarks/nano_gpu_training.py --json out.json

`--tiny` runs a tiny denoiser on a CPU, as a check of the script and of the work on the host.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lens.config import read_recipe
from lens.core.resolution import SIDE_STEP_PX
from lens.models.denoiser import LensTransformer2DModel
from lens.nano.world.patch_labels import NUM_LABELS
from lens.train.cost.flops import training_flops
from lens.train.cost.gpus import GPU_SPECS, find_gpu_name
from lens.train.data.nano_cache import CachedBucket
from lens.train.data.resident_bucket import ResidentBucket
from lens.train.devices import peak_memory_gib
from lens.train.ema import Ema
from lens.train.optimizer import build_optimizers
from lens.train.settings.stages import NanoPretrainSettings, bucket_sizes
from lens.train.stages.pretrain_loss import PretrainLoss
from lens.train.stages.pretrain_objective import CachedObjective, ResidentObjective
from lens.train.step import TrainState, train_step
from lens.train.trainer import compile_repeated_blocks

RECIPE = Path("recipes/nano/pretrain_gpu.yaml")
GOAL_SAMPLES_PER_S = 8000
ENCODER = {"in_channels": 128, "out_channels": 32, "enc_hidden_dim": 192}
NUM_SCAFFOLD_TOKENS, CAPTION_TOKENS = 27, (4, 160)
TINY = {
    "bases": [48], "ratios": ["1:1", "2:3"], "batch_size": 16, "precision": "float32", "layout_block": 0,
    "config": {
        "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "inner_dim": 32,
        "axes_dims_rope": [4, 6, 6], "selected_layer_index": [0, 1],
    },
}  # fmt: skip


class Way(NamedTuple):
    """A way to train."""

    name: str
    resident: bool = True
    capture: bool = False
    compile: bool = False


WAYS = (
    Way("main memory", resident=False), Way("resident"), Way("resident, captured", capture=True),
    Way("resident, captured, compiled", capture=True, compile=True),
)  # fmt: skip


def main() -> int:
    options = parse_options()
    device = torch.device("cpu" if options.tiny else "cuda")
    changes = (TINY if options.tiny else {}) | ({"batch_size": options.batch} if options.batch else {})
    values = read_recipe(RECIPE) | changes
    sizes = bucket_sizes("ratios", tuple(values.get("ratios", ())), values["bases"][0])
    shards = [random_shard(size, values["config"], options.examples) for size in sizes]
    card = "CPU" if options.tiny else torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}, batches of {values['batch_size']}", flush=True)
    if not options.tiny:
        print_expectation(ENCODER | values["config"], sizes, card)
    report: dict[str, Any] = {"card": card, "torch": str(torch.__version__), "ways": []}
    for way in WAYS:
        if way.compile and (options.no_compile or options.tiny):
            continue
        settings = NanoPretrainSettings.of(
            values | {"resident": way.resident, "capture": way.capture, "compile": way.compile}, str(RECIPE)
        )
        result = measure(way, settings, shards, device, options.steps)
        report["ways"].append({"name": way.name, "batch_size": settings.batch_size} | result)
        ratio = result["samples_per_s"] / report["ways"][0]["samples_per_s"]
        print(
            f"{way.name:<30}{result['samples_per_s']:>10,.0f} samples/s {ratio:>7.2f}x "
            f"{result['tflops_per_s']:>8.2f} TFLOP/s {result['peak_memory_gib']:>7.1f} GiB, "
            f"first time {result['warmup_s']:.0f} s",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def parse_options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--steps", type=int, default=40, help="updates to measure")
    parser.add_argument("--batch", type=int, default=0, help="samples of an update; 0 for the recipe's")
    parser.add_argument("--examples", type=int, default=1024, help="examples of each image size")
    parser.add_argument("--json", type=Path, help="file for the results; rewritten after every way")
    parser.add_argument("--tiny", action="store_true", help="a tiny denoiser on the CPU, nothing compiled")
    parser.add_argument("--no-compile", action="store_true", help="leave out compiled blocks")
    return parser.parse_args()


def measure(
    way: Way, settings: NanoPretrainSettings, shards: list[dict[str, Tensor]], device: torch.device,
    num_steps: int,
) -> dict[str, float]:  # fmt: skip
    """Return the speed of one way, with a new denoiser."""
    run = prepare(way, settings, shards, device)
    warmup_s = timed(run, num_steps, device)
    before, run.step = run.stats, 0  # the same steps again, and so the same shapes
    elapsed_s = timed(run, num_steps, device)
    work = run.stats
    result = {
        "samples_per_s": (work.num_samples - before.num_samples) / elapsed_s,
        "tokens_per_s": (work.num_tokens - before.num_tokens) / elapsed_s,
        "tflops_per_s": (work.flops - before.flops) / elapsed_s / 1e12,
        "peak_memory_gib": peak_memory_gib(), "warmup_s": warmup_s, "elapsed_s": elapsed_s,
    }  # fmt: skip
    del run
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return result


def prepare(
    way: Way, settings: NanoPretrainSettings, shards: list[dict[str, Tensor]], device: torch.device
) -> TrainState:
    denoiser: Any = LensTransformer2DModel(**(ENCODER | settings.config))
    denoiser.init_weights(torch.Generator().manual_seed(0))
    for unused in denoiser.unused_parameters():
        unused.requires_grad_(False)
    loss = PretrainLoss(denoiser, settings.precision, settings.layout_weight, settings.layout_block)
    loss.to(device)
    if way.compile:
        compile_repeated_blocks(denoiser)
    if way.resident:
        layers = range(len(denoiser.config.selected_layer_index))
        buckets = [ResidentBucket([shard], layers, device, NUM_SCAFFOLD_TOKENS) for shard in shards]
        objective: Any = ResidentObjective(settings, loss, buckets)
    else:
        cached = [CachedBucket([shard], None) for shard in shards]
        objective = CachedObjective(settings, loss, cached, NUM_SCAFFOLD_TOKENS)
    optimizer = build_optimizers(loss, settings.optimizer)
    return TrainState(settings, loss, optimizer, Ema(loss, settings.ema_decay), objective)


def timed(run: TrainState, num_steps: int, device: torch.device) -> float:
    """Return the seconds of some updates."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started_at = time.perf_counter()
    for _ in range(num_steps):
        terms = train_step(run)
    if not torch.isfinite(terms["loss"]):  # waits for the device
        raise ArithmeticError(f"the loss is {terms['loss'].item()}")
    return time.perf_counter() - started_at


def random_shard(size_px: tuple[int, int], config: dict[str, Any], num_examples: int) -> dict[str, Tensor]:
    """Return random examples of one image size, in the form of a shard of the cache."""
    draws = torch.Generator().manual_seed(0)
    h, w = (side // SIDE_STEP_PX for side in size_px)
    # As in the nano world, most captions are short.
    shares = torch.rand(num_examples, generator=draws) ** 3
    lengths = NUM_SCAFFOLD_TOKENS + (CAPTION_TOKENS[0] + shares * CAPTION_TOKENS[1]).long()
    num_layers, width = len(config["selected_layer_index"]), ENCODER["enc_hidden_dim"]
    return {
        "latents": torch.randn(num_examples, ENCODER["in_channels"], h, w, generator=draws).bfloat16(),
        "features": torch.randn(num_layers, int(lengths.sum()), width, generator=draws).bfloat16(),
        "lengths": lengths,
        "labels": torch.stack(
            [torch.randint(0, count, (num_examples, h, w), generator=draws) for count in NUM_LABELS], dim=1
        ).to(torch.uint8),
    }  # fmt: skip


def print_expectation(config: dict[str, Any], sizes: list[tuple[int, int]], card: str) -> None:
    """Print what the goal asks of the GPU, by the formula of operations."""
    filled = {"patch_size": 2} | config
    num_tokens = sum(h * w for h, w in sizes) // SIDE_STEP_PX**2 // len(sizes)
    flops = training_flops(filled, num_tokens, NUM_SCAFFOLD_TOKENS)
    needed = flops * GOAL_SAMPLES_PER_S
    gpu = find_gpu_name(card) or "h200"
    print(
        f"{flops / 1e9:.1f} GFLOP a sample of {num_tokens} image and {NUM_SCAFFOLD_TOKENS} text tokens: "
        f"{GOAL_SAMPLES_PER_S:,} samples/s are {needed / 1e12:.0f} TFLOP/s, "
        f"{100 * needed / GPU_SPECS[gpu].peak_flops_per_s:.1f}% of the peak of one {gpu.upper()}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
