"""Time training of the full denoiser on one CUDA card: share of the peak, tokens a second, memory.

Weights are random and so are latents and text features; no encoder is loaded. Everything else is what a run
does: its packs, its loss, its step, its checkpointing, its compiled blocks, its formula of operations (which
counts nothing that is computed again). Two things differ, for float32 weights, gradients, AdamW and averages
of 4.1 billion parameters are 80 GB: weights and AdamW are bfloat16 here, and of averages only the last
layer's are kept. On a cluster FSDP2 shares the float32 state out, and a card computes the same.

The padded baseline pads the pictures and texts of the very same packs to the largest of each, with masks.

    PYTHONPATH=src python3 benchmarks/train_gpu.py --budget-s 140 --json out.json --store recipes/lens/cards

`--tiny` runs all of it on a CPU with a tiny denoiser, which measures nothing.
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
from lens.core.latents import pack_latents
from lens.core.resolution import buckets_for
from lens.losses.base import LossOutput, StepStats
from lens.models.checkpoints.registry import LENS_DENOISER
from lens.models.denoiser import LensTransformer2DModel
from lens.train.activation_checkpointing import apply_activation_checkpointing
from lens.train.cost.flops import model_flops_utilization, training_flops
from lens.train.cost.training import GPU_SPECS
from lens.train.data.batch_sampler import TokenBatchSampler
from lens.train.data.latent_cache import EncodedSample
from lens.train.devices import autocast, peak_flops_per_s, peak_memory_gib
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
"""Guess of what a setting takes for which nothing is compiled."""
TINY = LENS_DENOISER | {
    "num_layers": 3, "inner_dim": 64, "num_attention_heads": 2, "attention_head_dim": 32, "enc_hidden_dim": 8,
    "axes_dims_rope": (8, 12, 12),
}  # fmt: skip


class Setting(NamedTuple):
    """What is timed."""

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
        """Return what blocks are compiled as: `full` computes again outside of them, with those of `none`."""
        return "selective" if self.checkpointing == "selective" else "plain"


def settings_of(budget: int) -> list[Setting]:
    """Return what to time, the most important first; `budget` is the recipe's, too large for some."""
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
    asked = parsed()
    started_at = time.monotonic()
    torch.manual_seed(0)
    device = torch.device("cpu" if asked.tiny else "cuda")
    if not asked.tiny:
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    recipe = TextToImageSettings.of(read_recipe(RECIPE), str(RECIPE))
    bases, budget = ((64, 96), 240) if asked.tiny else (recipe.data.bases, recipe.pack_tokens)
    bench = Bench(TINY if asked.tiny else LENS_DENOISER, device, bases)
    card = "CPU" if asked.tiny else torch.cuda.get_device_name()
    report: dict[str, Any] = {
        "card": card, "torch": str(torch.__version__), "date": str(date.today()), "model_s": bench.made_s,
        "state": "bfloat16 weights, gradients and AdamW, no averages", "settings": [],
    }  # fmt: skip
    say(f"{card}, torch {torch.__version__}; {bench.num_parameters:,} weights, {report['state']}; "
        f"ready after {time.monotonic() - started_at:.0f} s")
    say(f"{'':<52}{'MFU':>7}{'tokens/s':>10}{'s/step':>8}{'GiB':>7}  notes")
    compile_s = 0.0
    for setting in settings_of(budget):
        if asked.no_compile and setting.compile:
            continue
        elapsed_s = time.monotonic() - started_at
        is_new = setting.compile and setting.graph not in bench.compiled
        needed_s = SECONDS_OF_A_SETTING + (compile_s if is_new else 0)
        if elapsed_s + (needed_s if report["settings"] else 0) > asked.budget_s:
            why = f"skipped: {elapsed_s:.0f} s are over, it needs {needed_s:.0f}"
            found: dict[str, Any] = {"failed": why}
        else:
            bench.with_kernels = asked.kernels and not report["settings"]
            found = bench.outcome(setting)
        if is_new and "warmup_s" in found:
            compile_s = found["warmup_s"]
        report["settings"].append(setting._asdict() | found)
        say(line(setting, found))
        for milliseconds, count, name in found.get("kernels", []):
            say(f"    {milliseconds:9.2f} ms {count:6}  {name}")
        if asked.json:
            asked.json.write_text(json.dumps(report, indent=2) + "\n")
    say("\n".join(conclusions(report["settings"])))
    if asked.store:
        say(stored(report, asked.store))
    return 0


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--budget-s", type=float, default=140, help="no setting begins that would end later")
    parser.add_argument("--json", type=Path, help="rewritten after every setting")
    parser.add_argument("--store", type=Path, help="folder for the card's best setting")
    parser.add_argument("--kernels", action="store_true", help="tell what the first setting's time goes to")
    parser.add_argument("--tiny", action="store_true", help="a tiny denoiser on the CPU")
    parser.add_argument("--no-compile", action="store_true", help="leave out what is compiled")
    return parser.parse_args()


say = partial(print, flush=True)


class Bench:
    """One denoiser with its optimizer, made ready for a setting after another."""

    with_kernels = False  # whether to say what the card did in a step

    def __init__(self, config: dict[str, Any], device: torch.device, bases: tuple[int, ...]):
        started_at = time.monotonic()
        self.device, self.config = device, config
        self.compiled: set[str] = set()
        """Graphs that were compiled so far."""
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
        """Return what was measured, or why nothing was; either way the next setting can go on."""
        try:
            return self._measured(setting)
        except torch.OutOfMemoryError:
            failed = "out of memory"
        except Exception as error:  # whatever it is, the settings that follow are worth more
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
        if peak := peak_flops_per_s():
            found["mfu"] = model_flops_utilization(run.stats.flops, seconds, peak)
        if self.with_kernels and self.device.type == "cuda":  # last, for it is one more step
            found["kernels"] = self._kernels(run)
        return found

    def _prepare(self, setting: Setting) -> None:
        """Give the blocks the setting's checkpointing and compilation; compiled code is found again."""
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
            raise ArithmeticError(f"loss {terms['loss'].item()}, {run.guard.num_skipped} updates left out")
        return time.perf_counter() - started_at

    def _kernels(self, run: TrainState) -> list[tuple[float, int, str]]:
        """Return the milliseconds, launches and names of what took the card longest in one more step."""
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
        """Return samples in an order drawn once, every bucket as often as any other."""
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
    """Return a denoiser of small random weights in bfloat16, made on the device itself."""
    with torch.device("meta"):
        denoiser: Any = LensTransformer2DModel(**config)
    denoiser = denoiser.to(torch.bfloat16).to_empty(device=device).train()
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.02)
            else:
                parameter.fill_(float("norm" in name and name.endswith("weight")))
    for unread in denoiser.unused_parameters():
        unread.requires_grad_(False)
    return denoiser


def padded_errors(
    denoiser: Any, samples: list[EncodedSample], t: Tensor, noise: torch.Generator, device: torch.device,
    precision: str,
) -> Tensor:  # fmt: skip
    """Return the error of each picture, (P,), of a batch padded to its largest picture and text."""
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
        tokens, shapes = pack_latents(noisy), [(1, h, w)]
        velocity = denoiser(tokens, features, mask.to(device), t, shapes).sample             # (P, h*w, C)
    error = (velocity.float() - pack_latents(eps - clean)).square().mean(-1)                 # (P, h*w)
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
    """Yield ratios of tokens a second, and how the goal was met."""
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


def stored(report: dict[str, Any], folder: Path) -> str:
    """Write the card's best setting where plans look for it; return what was done.

    The best is that of 512 x 512; its share of the peak is the lower of both streams, where both were timed.
    """
    done = [row for row in report["settings"] if row.get("mfu") and not row["padded"]]
    kind = next((kind for kind in GPU_SPECS if kind in report["card"].lower().replace(" ", "")), None)
    squares = [row for row in done if row["stream"] == "square"]
    if kind is None or not squares:
        return "nothing stored: no share of a known card's peak was measured"
    best = max(squares, key=lambda row: row["mfu"])
    chosen = best["checkpointing"], best["compile"]
    alike = [row for row in done if (row["checkpointing"], row["compile"]) == chosen]
    shares = {
        stream: round(max(row["mfu"] for row in alike if row["stream"] == stream), 4)
        for stream in ("square", "mixed") if any(row["stream"] == stream for row in alike)
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.yaml"
    write_yaml(
        {
            "card": report["card"], "date": report["date"], "torch": report["torch"],
            "measured_by": "benchmarks/train_gpu.py", "state": report["state"],
            "mfu": min(shares.values()), "mfu_by_stream": shares,
            "gradient_checkpointing": best["checkpointing"], "compile": best["compile"],
            "pack_tokens": best["pack_tokens"], "tokens_per_s": round(best["tokens_per_s"]),
            "peak_memory_gib": round(best["peak_memory_gib"], 1),
        },
        path,
    )  # fmt: skip
    return f"stored {path}"


if __name__ == "__main__":
    raise SystemExit(main())
