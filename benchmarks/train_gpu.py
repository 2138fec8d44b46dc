"""Training speed of the full denoiser on one CUDA GPU: MFU, tokens per second, memory.

Weights, latents and text features are random; no encoder is loaded. Everything else is as in a run: packs,
loss, step, activation checkpointing, compiled blocks, and the formula of operations, which does not count
recomputation. Two things differ, because float32 weights, gradients, AdamW state and averages of 4.1 billion
parameters take 80 GB. Weights and AdamW state are bfloat16, and only the last layer has an average. On a
cluster FSDP2 shards the float32 state, and each GPU computes the same.

The padded baseline pads the images and texts of the same packs to the largest of each, with masks.

    PYTHONPATH=src python3 benchmarks/train_gpu.py --budget-s 140 --json out.json --store recipes/lens/cards

`--tiny` runs everything on a CPU with a tiny denoiser, as a check without a measurement.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F

from lens.config import read_recipe, write_yaml
from lens.core.resolution import buckets_for
from lens.losses.base import LossOutput, StepStats
from lens.models.checkpoints.registry import LENS_DENOISER
from lens.models.denoiser import LensTransformer2DModel
from lens.models.velocity import predict_velocity
from lens.train.activation_checkpointing import apply_activation_checkpointing
from lens.train.cost.flops import model_flops_utilization, training_flops
from lens.train.cost.gpus import GPU_SPECS, find_gpu_name
from lens.train.data.batch_sampler import TokenBatchSampler
from lens.train.data.latent_cache import EncodedSample
from lens.train.devices import autocast, peak_memory_gib
from lens.train.ema import Ema
from lens.train.optimizer import build_optimizers
from lens.train.settings.run import RunSettings
from lens.train.settings.stages import TextToImageSettings
from lens.train.stages.text_to_image import image_errors
from lens.train.step import TrainState, train_step
from lens.train.trainer import compile_repeated_blocks

RECIPE = Path("recipes/lens/pretrain_mixed.yaml")
TEXT_TOKENS = (40, 250)
GOAL_MFU = 0.45
SECONDS_OF_A_SETTING = 6
"""Assumed duration of a setting without compilation."""
TINY = LENS_DENOISER | {
    "num_layers": 3, "inner_dim": 64, "num_attention_heads": 2, "attention_head_dim": 32, "enc_hidden_dim": 8,
    "axes_dims_rope": (8, 12, 12),
}  # fmt: skip


class Setting(NamedTuple):
    """A setting to measure."""

    stream: str
    """square: 512 x 512 alone; mixed: all buckets of the recipe."""
    pack_tokens: int
    checkpointing: str
    compile: bool = True
    padded: bool = False
    num_warmup: int = 2
    num_timed: int = 4

    @property
    def graph(self) -> str:
        """Return which compiled graph the setting uses; `full` recomputes outside of the blocks."""
        return "selective" if self.checkpointing == "selective" else "plain"


def settings_to_measure(budget: int) -> list[Setting]:
    """Return the settings to measure, most important first; `budget` is the recipe's number of tokens."""
    half, eager = budget // 2, {"compile": False, "num_warmup": 1, "num_timed": 2}
    return [
        Setting("square", half, "selective"),
        Setting("mixed", half, "selective", num_timed=6),
        Setting("square", budget * 2 // 3, "selective"),
        Setting("mixed", half, "full", **eager),
        Setting("mixed", half, "full", padded=True, **eager),
        Setting("square", half, "selective", **eager),
        Setting("square", budget, "full", **eager),
        Setting("square", budget, "full"),
        Setting("mixed", budget, "full", num_timed=6),
        Setting("square", budget // 3, "none"),
        Setting("square", half, "none"),
        Setting("mixed", budget // 3, "none", num_timed=6),
    ]


def main() -> int:
    options = parse_options()
    started_at = time.monotonic()
    torch.manual_seed(0)
    device = torch.device("cpu" if options.tiny else "cuda")
    if not options.tiny:
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    recipe = TextToImageSettings.of(read_recipe(RECIPE), str(RECIPE))
    bases, budget = ((64, 96), 240) if options.tiny else (recipe.data.bases, recipe.pack_tokens)
    bench = Bench(TINY if options.tiny else LENS_DENOISER, device, bases)
    card = "CPU" if options.tiny else torch.cuda.get_device_name()
    report: dict[str, Any] = {
        "card": card, "torch": str(torch.__version__), "date": str(date.today()), "model_s": bench.made_s,
        "state": "bfloat16 weights, gradients and AdamW, no averages", "settings": [],
    }  # fmt: skip
    say(f"{card}, torch {torch.__version__}; {bench.num_parameters:,} parameters, {report['state']}; "
        f"ready after {time.monotonic() - started_at:.0f} s")
    say(f"{'':<52}{'MFU':>7}{'tokens/s':>10}{'s/step':>8}{'GiB':>7}  notes")
    compile_s = 0.0
    for setting in settings_to_measure(budget):
        if options.no_compile and setting.compile:
            continue
        elapsed_s = time.monotonic() - started_at
        is_new = setting.compile and setting.graph not in bench.compiled
        needed_s = SECONDS_OF_A_SETTING + (compile_s if is_new else 0)
        if elapsed_s + (needed_s if report["settings"] else 0) > options.budget_s:
            why = f"skipped: {elapsed_s:.0f} s have passed, it needs {needed_s:.0f} s"
            found: dict[str, Any] = {"failed": why}
        else:
            bench.with_kernels = options.kernels and not report["settings"]
            found = bench.outcome(setting)
        if is_new and "warmup_s" in found:
            compile_s = found["warmup_s"]
        report["settings"].append(setting._asdict() | found)
        say(line(setting, found))
        for milliseconds, count, name in found.get("kernels", []):
            say(f"    {milliseconds:9.2f} ms {count:6}  {name}")
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    say("\n".join(conclusions(report["settings"])))
    if options.store:
        say(store_best(report, options.store))
    return 0


def parse_options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--budget-s", type=float, default=140, help="start no setting that would end later")
    parser.add_argument("--json", type=Path, help="file for the results; rewritten after every setting")
    parser.add_argument("--store", type=Path, help="folder for the best setting of this GPU")
    parser.add_argument("--kernels", action="store_true", help="list the slowest kernels of setting one")
    parser.add_argument("--tiny", action="store_true", help="a tiny denoiser on the CPU")
    parser.add_argument("--no-compile", action="store_true", help="leave out settings with compiled blocks")
    return parser.parse_args()


say = partial(print, flush=True)


class Bench:
    """A denoiser with its optimizer, prepared for one setting after another."""

    with_kernels = False  # whether to list the kernels of a step

    def __init__(self, config: dict[str, Any], device: torch.device, bases: tuple[int, ...]):
        started_at = time.monotonic()
        self.device, self.config = device, config
        self.compiled: set[str] = set()
        """Graphs that are already compiled."""
        self.denoiser = random_denoiser(config, device)
        self.num_parameters = sum(one.numel() for one in self.denoiser.parameters())
        self._run_settings = RunSettings.of({"stage": "denoiser", "out": "runs/none", "steps": 10**6})
        self._optimizer = build_optimizers(self.denoiser, self._run_settings.optimizer)
        num_layers, width = len(config["selected_layer_index"]), config["enc_hidden_dim"]
        self._texts = torch.randn(num_layers, TEXT_TOKENS[1], width).bfloat16()  # (L, T, E)
        self._streams = {
            "square": self._stream(bases[:1], ["1:1"]),
            "mixed": self._stream(bases, None),
        }
        self.made_s = time.monotonic() - started_at

    def outcome(self, setting: Setting) -> dict[str, Any]:
        """Return the measurement, or why it failed; the next setting can run in both cases."""
        try:
            return self._measured(setting)
        except torch.OutOfMemoryError:
            failed = "out of memory"
        except Exception as error:  # a failed setting must not prevent the next ones
            failed = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        # Only here, when the traceback no longer holds the tensors.
        self.denoiser.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {"failed": failed}

    def _measured(self, setting: Setting) -> dict[str, Any]:
        self._prepare(setting)
        run = TrainState(
            settings=self._run_settings, model=self.denoiser, optimizer=self._optimizer,
            ema=Ema(self.denoiser, 0.9999, ("proj_out",)), objective=self._objective(setting),
        )  # fmt: skip
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        warmup_s = self._timed(run, setting.num_warmup)
        run.stats, num_graphs = StepStats(), counters["stats"]["unique_graphs"]
        seconds = self._timed(run, setting.num_timed)
        found: dict[str, Any] = {
            "tokens_per_s": run.stats.num_tokens / seconds, "samples_per_s": run.stats.num_samples / seconds,
            "s_a_step": seconds / setting.num_timed, "peak_memory_gib": peak_memory_gib(),
            "data_s": run.stats.data_s, "warmup_s": warmup_s,
            "compiled_while_timed": counters["stats"]["unique_graphs"] - num_graphs, "mfu": None,
        }  # fmt: skip
        if self.device.type == "cuda" and (gpu := find_gpu_name(torch.cuda.get_device_name())):
            peak = GPU_SPECS[gpu].peak_flops_per_s
            found["mfu"] = model_flops_utilization(run.stats.flops, seconds, peak)
        if self.with_kernels and self.device.type == "cuda":  # last, for it is one more step
            found["kernels"] = self._kernels(run)
        return found

    def _prepare(self, setting: Setting) -> None:
        """Apply the setting's checkpointing and compilation to the blocks; compiled code is reused."""
        self.denoiser.disable_gradient_checkpointing()
        for block in self.denoiser.transformer_blocks:
            block.__dict__.pop("forward", None)
            block._compiled_call_impl = None
        apply_activation_checkpointing(self.denoiser, setting.checkpointing)
        if setting.compile:
            compile_repeated_blocks(self.denoiser)
            self.compiled.add(setting.graph)

    def _timed(self, run: TrainState, num_steps: int) -> float:
        self._synchronize()
        started_at = time.perf_counter()
        for _ in range(num_steps):
            terms = train_step(run)
        self._synchronize()
        if run.guard.num_skipped or not torch.isfinite(terms["loss"]):
            raise ArithmeticError(f"loss {terms['loss'].item()}, {run.guard.num_skipped} updates skipped")
        return time.perf_counter() - started_at

    def _kernels(self, run: TrainState) -> list[tuple[float, int, str]]:
        """Return milliseconds, launches and names of the slowest kernels of one more step."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            train_step(run)
            self._synchronize()
        events: list[Any] = list(profile.key_averages())
        rows = [(one.self_device_time_total / 1e3, one.count, one.key[:100]) for one in events]
        return sorted(rows, reverse=True)[:40]

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _stream(self, bases: tuple[int, ...], ratios: list[str] | None) -> list[EncodedSample]:
        """Return samples of all buckets, equally often and in a fixed random order."""
        rng = np.random.default_rng(0)
        buckets = [pair for base in bases for pair in buckets_for(base).items()]
        sizes = [size for name, size in buckets if name in (ratios or [name])]
        samples = []
        for index in rng.permutation(96):
            height, width = sizes[index % len(sizes)]
            latents = torch.randn(self.config["in_channels"], height // 16, width // 16).bfloat16()
            samples.append(EncodedSample(latents, self._texts[:, : rng.integers(*TEXT_TOKENS)]))
        return samples

    def _objective(self, setting: Setting) -> Callable[[int, int], LossOutput]:
        stream = self._streams[setting.stream]
        packs = TokenBatchSampler([one.latents[0].numel() for one in stream], setting.pack_tokens, seed=0)
        errors = padded_errors if setting.padded else image_errors

        def objective(step: int, _index: int) -> LossOutput:
            started_at = time.perf_counter()
            samples = [stream[item] for item in packs[step]]
            draw = torch.Generator().manual_seed(step)
            t = torch.rand(len(samples), generator=draw)
            lengths = [(one.latents[0].numel(), one.features.shape[1]) for one in samples]
            flops = sum(training_flops(self.config, *pair) for pair in lengths)
            work = StepStats(len(samples), sum(map(sum, lengths)), flops, time.perf_counter() - started_at)
            return LossOutput(errors(self.denoiser, samples, t, draw, self.device, "bf16").mean(), {}, work)

        return objective


def random_denoiser(config: dict[str, Any], device: torch.device) -> Any:
    """Return a denoiser with small random bfloat16 weights, created on the device."""
    with torch.device("meta"):
        denoiser: Any = LensTransformer2DModel(**config)
    denoiser = denoiser.to(torch.bfloat16).to_empty(device=device).train()
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.02)
            else:
                parameter.fill_(float("norm" in name and name.endswith("weight")))
    for unused in denoiser.unused_parameters():
        unused.requires_grad_(False)
    return denoiser


def padded_errors(
    denoiser: Any, samples: list[EncodedSample], t: Tensor, noise: torch.Generator, device: torch.device,
    precision: str,
) -> Tensor:  # fmt: skip
    """Return the error of each image, (P,), of a batch padded to its largest image and text."""
    h, w = (max(one.latents.shape[side] for one in samples) for side in (1, 2))
    longest = max(one.features.shape[1] for one in samples)
    clean = torch.stack([_filled(one.latents.float(), h, w) for one in samples]).to(device)  # (P, C, h, w)
    real = torch.stack([_filled(torch.ones_like(one.latents[:1]), h, w) for one in samples]).to(device)
    rows = [F.pad(one.features, (0, 0, 0, longest - one.features.shape[1])) for one in samples]
    features = list(torch.stack(rows).to(device).unbind(1))                                # L of (P, T, E)
    mask = torch.tensor([[place < one.features.shape[1] for place in range(longest)] for one in samples])
    eps = torch.randn(clean.shape, generator=noise).to(device)
    t = t.to(device)
    noisy = torch.lerp(clean, eps, t[:, None, None, None])                                   # (P, C, h, w)
    with autocast(device, precision):
        velocity = predict_velocity(denoiser, noisy, t, features, mask.to(device))            # (P, C, h, w)
    error = (velocity - (eps - clean)).square().mean(1).flatten(1)                           # (P, h*w)
    weight = real.flatten(1).float()
    return (error * weight).sum(1) / weight.sum(1)


def _filled(grid: Tensor, h: int, w: int) -> Tensor:
    return F.pad(grid, (0, w - grid.shape[2], 0, h - grid.shape[1]))


def line(setting: Setting, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    how = f"{'padded' if setting.padded else 'packed'}, {'compiled' if setting.compile else 'eager'}"
    name = f"{setting.stream} {setting.pack_tokens:>6,} {setting.checkpointing:<10}{how}"
    if "failed" in found:
        return f"{name:<52}{found['failed']}"
    mfu = "-" if found["mfu"] is None else f"{100 * found['mfu']:.1f}%"
    notes = f"warm-up {found['warmup_s']:.0f} s"
    if found["compiled_while_timed"]:
        notes += f", {found['compiled_while_timed']} graphs compiled while timed"
    rates = f"{mfu:>7}{found['tokens_per_s']:>10,.0f}{found['s_a_step']:>8.3f}"
    return f"{name:<52}{rates}{found['peak_memory_gib']:>7.1f}  {notes}"


def conclusions(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield ratios of tokens per second, and the best MFU against the goal."""
    done = [row for row in rows if "failed" not in row]

    def rate(**wanted: Any) -> float | None:
        rates = [row["tokens_per_s"] for row in done if wanted.items() <= row.items()]
        return max(rates, default=None)

    pairs = {
        "mixed, packed : padded, both eager": (
            rate(stream="mixed", padded=False, compile=False), rate(stream="mixed", padded=True)
        ),
        "mixed, packed and compiled : padded, eager": (
            rate(stream="mixed", compile=True), rate(stream="mixed", padded=True)
        ),
        "square, selective, compiled : eager": (
            rate(stream="square", checkpointing="selective", compile=True),
            rate(stream="square", checkpointing="selective", compile=False),
        ),
    }  # fmt: skip
    for name, (more, less) in pairs.items():
        yield f"{name}: {f'{more / less:.2f}x the tokens/s' if more and less else 'not measured'}"
    for stream in ("square", "mixed"):
        shares = [row["mfu"] for row in done if row["stream"] == stream and row["mfu"]]
        if shares:
            yield f"best MFU, {stream}: {100 * max(shares):.1f}% (goal {100 * GOAL_MFU:.0f}%)"


def store_best(report: dict[str, Any], folder: Path) -> str:
    """Write the best setting of this GPU for cost estimates; return a line for the log.

    The best setting is that of 512 x 512. Its MFU is the lower one of both streams, if both were measured.
    """
    done = [row for row in report["settings"] if row.get("mfu") and not row["padded"]]
    kind = find_gpu_name(report["card"])
    squares = [row for row in done if row["stream"] == "square"]
    if kind is None or not squares:
        return "nothing stored: no MFU of a known GPU was measured"
    best = max(squares, key=lambda row: row["mfu"])
    chosen = best["checkpointing"], best["compile"]
    alike = [row for row in done if (row["checkpointing"], row["compile"]) == chosen]
    shares = {
        stream: round(max(row["mfu"] for row in alike if row["stream"] == stream), 4)
        for stream in ("square", "mixed") if any(row["stream"] == stream for row in alike)
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.yaml"
    # benchmarks/gpu_inference.py adds a section of its own to the card.
    before = read_recipe(path) if path.is_file() else {}
    write_yaml(
        {
            "card": report["card"], "date": report["date"], "torch": report["torch"],
            "measured_by": "benchmarks/train_gpu.py", "state": report["state"],
            "mfu": min(shares.values()), "mfu_by_stream": shares,
            "gradient_checkpointing": best["checkpointing"], "compile": best["compile"],
            "pack_tokens": best["pack_tokens"], "tokens_per_s": round(best["tokens_per_s"]),
            "peak_memory_gib": round(best["peak_memory_gib"], 1),
        } | {key: before[key] for key in ("inference",) if key in before},
        path,
    )  # fmt: skip
    return f"stored {path}"


if __name__ == "__main__":
    raise SystemExit(main())
