"""Speed and memory of generation on one CUDA GPU: full-size models with random weights, made on the device.

Measures the code of the pipeline: guided velocity, solver and decoding. Parts run in the order of their
value. Each finished part is a line of the output file, and a part that is there is not run again, so a run
that stops at its budget continues where it was. A part that fails writes its error, and the next one runs.

    PYTHONPATH=src python benchmarks/gpu_inference.py --out inference.jsonl --store recipes/lens/cards

`--device cpu --tiny` runs everything on a CPU with tiny models, as a check without a measurement.
"""

import argparse
import gc
import logging
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gpu_inference_parts as numbers
from gpu_inference_parts import NUM_TEXT_TOKENS, STEPS, Part
from gpu_inference_ways import (
    GraphedDenoiser,
    attention_kernel,
    packed_velocity,
    padded_velocity,
    quantize_to_float8,
)
from lens.core.latents import unpack_latents
from lens.core.schedule import sampling_sigmas
from lens.models import layers
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.vae import decode_latents
from lens.sampling.guided_denoiser import predict_velocity_cfg
from lens.sampling.prompt_embeds import PromptEmbeds
from lens.sampling.solvers import DEFAULT_SOLVER, get_solver
from lens.train.devices import peak_memory_gib
from train_gpu import TINY, random_denoiser

GUIDANCE = {"lens": 5.0, "turbo": 1.0}
TINY_SIZES = {512: 32, 1024: 64, 1440: 80}
TINY_VAE = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "layers_per_block": 1}
TINY_ENCODER = {
    "num_hidden_layers": 2, "num_local_experts": 3, "num_experts_per_tok": 2, "vocab_size": 50,
    "head_dim": 16, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
    "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip

say = partial(print, flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse_options(arguments)
    started_at = time.monotonic()
    # Each move of a model would log that it has no layers to keep in float32.
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    device = torch.device(options.device)
    card = "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    bench = Bench(device, options.tiny)
    rows = numbers.read_rows(options.out, card)
    finished = {row["part"] for row in rows if "failed" not in row or not options.retry}
    rows = [row for row in rows if row["part"] in finished]
    say(f"{card}, torch {torch.__version__}; {len(finished)} parts are finished")
    if options.tiny:
        say("Tiny models: a check, no measurement.")
    for part in numbers.parts_to_measure():
        if part.name in finished or not options.only <= {part.kind, part.variant}:
            continue
        if options.no_compile and part.mode != "eager":
            continue
        elapsed_s = time.monotonic() - started_at
        if elapsed_s + part.estimate_s > options.budget_s:
            say(f"{part.name:<58}  not run: {elapsed_s:.0f} s have passed, it takes {part.estimate_s:.0f} s")
            continue
        used = numbers.best_attention(rows) if part.attention == "best" else part.attention
        row = {"part": part.name, **part._asdict(), "attention_used": used}
        row |= {"card": card, "torch": str(torch.__version__), "date": str(date.today())}
        row |= bench.outcome(part, used)
        rows.append(row)
        if options.out is not None:
            numbers.append_row(options.out, row)
        say(numbers.table(rows)[-1])
    say("\n".join(["", *numbers.table(rows), *numbers.conclusions(rows)]))
    if options.store:
        say(numbers.store_best(rows, options.store))
    return 0


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--budget-s", type=float, default=480, help="start no part that may end later")
    parser.add_argument("--out", type=Path, help="file for the results, a line of JSON a part")
    parser.add_argument("--store", type=Path, help="folder for the fastest settings of this GPU")
    parser.add_argument("--only", nargs="*", default=[], help="kind and variant of the parts to run")
    parser.add_argument("--retry", action="store_true", help="run parts again that failed")
    parser.add_argument("--no-compile", action="store_true", help="leave out all but eager parts")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models, as a check")
    options = parser.parse_args(arguments)
    options.only = set(options.only)
    return options


class Bench:
    """Models on a device, made for one part after another; one denoiser at a time."""

    def __init__(self, device: torch.device, is_tiny: bool):
        self.device, self.is_tiny = device, is_tiny
        self.config = TINY if is_tiny else LENS_DENOISER
        self._denoiser: tuple[str, Any] | None = None

    def outcome(self, part: Part, attention: str) -> dict[str, Any]:
        """Return the measurement, or why it failed; the next part can run in both cases."""
        measure = getattr(self, f"_measure_{part.kind}")
        try:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with attention_kernel(attention), torch.no_grad():
                return {**measure(part), "peak_memory_gib": peak_memory_gib()}
        except torch.OutOfMemoryError:
            failed = "out of memory"
        except Exception as error:  # a failed part must not prevent the next ones
            failed = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        finally:
            if part.kind != "draw":
                self._denoiser = None
        # Only here, when the traceback no longer holds the tensors.
        self._free()
        return {"failed": failed}

    def _measure_attention(self, part: Part) -> dict[str, Any]:
        num_tokens = self._cells(part) ** 2 + NUM_TEXT_TOKENS
        heads, width = self.config["num_attention_heads"], self.config["attention_head_dim"]
        q, k, v = self._random(3, 1, heads, num_tokens, width).unbind(0)  # (1, H, N, K) each
        times = self._times(lambda: layers.attention(q, k, v, None), 9)
        return self._rated(times, 4.0 * num_tokens**2 * heads * width)

    def _measure_draw(self, part: Part) -> dict[str, Any]:
        denoiser, cells = self._prepared(part), self._cells(part)
        cond = self._prompt()
        x = self._random(1, cells**2, self.config["in_channels"]).float()  # (1, I, C)
        num_steps = STEPS[part.variant]
        sigmas = sampling_sigmas(cells**2, num_steps)
        scale, size = GUIDANCE[part.variant], (cells, cells)
        uncond = cond.rows([None])
        velocities: dict[str, Callable[[Tensor, float], Tensor]] = {
            "two": lambda x, t: predict_velocity_cfg(denoiser, x, t, cond, uncond, scale, size),
            "padded": lambda x, t: padded_velocity(denoiser, x, t, cond, uncond, scale, size),
            "packed": lambda x, t: packed_velocity(denoiser, x, t, cond, scale, size),
        }
        solve, velocity = get_solver(DEFAULT_SOLVER), velocities[part.guidance]
        started_at = time.monotonic()
        solve(velocity, sigmas[:3], x)
        self._synchronize()
        warmup_s = time.monotonic() - started_at
        last = x

        def draw() -> None:
            nonlocal last
            last = solve(velocity, sigmas, x)

        times = self._times(draw, 5 if num_steps < 10 else 2)
        if not torch.isfinite(last).all():
            raise ArithmeticError("the latents are not finite")
        flops = numbers.drawing_flops(self.config, part.variant, 16 * cells)
        return self._rated(times, flops) | {
            "warmup_s": warmup_s,
            "s_a_step": statistics.median(times) / num_steps,
        }

    def _measure_decode(self, part: Part) -> dict[str, Any]:
        vae, cells = self._vae(), self._cells(part)
        if part.channels_last:
            vae = vae.to(memory_format=torch.channels_last)
        if part.mode == "whole":
            torch._dynamo.reset()
            vae.decoder.compile(dynamic=False)
        latents = unpack_latents(self._random(1, cells**2, self.config["in_channels"]), cells, cells)
        decode_latents(vae, latents)
        return {"s": statistics.median(self._times(lambda: decode_latents(vae, latents), 5))}

    def _measure_rung(self, part: Part) -> dict[str, Any]:
        """A call of the pipeline in four steps, from a denoiser and a VAE that start in main memory."""
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        from lens.sampling.pipeline import LensPipeline
        from lens.sampling.placement import place

        self._denoiser = None
        self._free()
        denoiser = random_denoiser(self.config, self.device).eval().to("cpu")
        pipeline = LensPipeline(
            FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), self._vae().to("cpu"), None, None,
            denoiser, "turbo",
        )
        pipeline.set_progress_bar_config(disable=True)
        place(pipeline, self.device, part.variant)  # type: ignore[arg-type]
        self._free()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        side, cond = 16 * self._cells(part), self._prompt()

        def draw() -> None:
            pipeline(
                prompt_embeds=cond.features, prompt_mask=cond.mask, height=side, width=side, output_type="pt",
                num_inference_steps=STEPS["turbo"], guidance_scale=1.0,
            )  # fmt: skip

        draw()
        return {"s": statistics.median(self._times(draw, 1 if self.is_tiny else 2))}

    def _measure_encode(self, part: Part) -> dict[str, Any]:
        """One prompt through GPT-OSS with its experts in MXFP4, dequantized one at a time."""
        self._denoiser = None
        encoder = self._encoder()
        last = encoder.config.num_hidden_layers - 1
        ids = torch.randint(0, encoder.config.vocab_size, (1, NUM_TEXT_TOKENS), device=self.device)
        encoder.text_features(ids, None, (last,))
        return {"s": statistics.median(self._times(lambda: encoder.text_features(ids, None, (last,)), 3))}

    # ---- models and inputs

    def _prepared(self, part: Part) -> Any:
        """Return the denoiser with the weights and the compilation of a part."""
        if self._denoiser is None or self._denoiser[0] != part.weights:
            self._denoiser = None
            self._free()
            denoiser = random_denoiser(self.config, self.device).eval().requires_grad_(False)
            quantize_to_float8(denoiser, part.weights)
            self._denoiser = part.weights, denoiser
        denoiser = self._denoiser[1]
        denoiser._compiled_call_impl = None
        for block in denoiser.transformer_blocks:
            block._compiled_call_impl = None
        if part.mode != "eager":
            torch._dynamo.reset()
            # With and without text, and the last block compile separately.
            torch._dynamo.config.recompile_limit = 32  # type: ignore[attr-defined]
        if part.mode in ("blocks", "graph"):
            denoiser.compile_repeated_blocks(dynamic=False)
        if part.mode == "whole":
            denoiser.compile(dynamic=False)
        return GraphedDenoiser(denoiser) if part.mode == "graph" and self.device.type == "cuda" else denoiser

    def _vae(self) -> Any:
        from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

        with self.device:
            vae = AutoencoderKLFlux2(**(FLUX2_VAE | (TINY_VAE if self.is_tiny else {})))
        return vae.to(torch.bfloat16).eval().requires_grad_(False)

    def _encoder(self) -> Any:
        from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig

        from lens.models.checkpoints.text_encoder import LensGptOssEncoder
        from lens.models.quantized.packed_modules import PackedExperts
        from lens.models.quantized.packed_weight import MXFP4, PackedWeight

        config = GptOssConfig(**(GPT_OSS_20B | (TINY_ENCODER if self.is_tiny else {})))
        with torch.device("meta"):
            encoder = LensGptOssEncoder(config).to(torch.bfloat16)
        for layer in encoder.model.layers:
            packed = []
            for name in ("gate_up_proj", "down_proj"):
                experts, inputs, outputs = getattr(layer.mlp.experts, name).shape
                blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
                scales = torch.full(blocks.shape[:3], 120, dtype=torch.uint8)
                packed.append(PackedWeight(MXFP4, (blocks, scales), (experts, outputs, inputs)))
            layer.mlp.experts = PackedExperts(layer.mlp.experts, packed[0], packed[1], torch.bfloat16)
        for module in encoder.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None and tensor.is_meta:
                        made = torch.randn(tensor.shape, dtype=tensor.dtype, device=self.device) * 0.02
                        table[name] = nn.Parameter(made) if table is module._parameters else made
        return encoder.to(self.device).eval().requires_grad_(False)

    def _prompt(self) -> PromptEmbeds:
        num_layers, width = len(self.config["selected_layer_index"]), self.config["enc_hidden_dim"]
        features = list(self._random(num_layers, 1, NUM_TEXT_TOKENS, width).unbind(0))  # L of (1, T, E)
        return PromptEmbeds(features, torch.ones(1, NUM_TEXT_TOKENS, dtype=torch.bool, device=self.device))

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.bfloat16, device=self.device)

    def _cells(self, part: Part) -> int:
        return (TINY_SIZES[part.size] if self.is_tiny else part.size) // 16

    # ---- time and memory

    def _times(self, call: Callable[[], Any], num_calls: int) -> list[float]:
        times = []
        for _ in range(1 if self.is_tiny else num_calls):
            self._synchronize()
            started_at = time.perf_counter()
            call()
            self._synchronize()
            times.append(time.perf_counter() - started_at)
        return times

    def _rated(self, times: list[float], flops: float) -> dict[str, Any]:
        seconds = statistics.median(times)
        share = flops / seconds / numbers.MATMUL_FLOPS_PER_S
        return {"s": seconds, "tflops": flops / seconds / 1e12, "share": share}

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
