"""Time the full-size denoiser's blocks on a CPU, in bfloat16: against plain products, or against ComfyUI.

Without --comfyui: a few blocks of the published sizes (all cost the same), each forward beside plain bfloat16
products of the shapes that it makes. The share is the time of those products by that of the forward; it can
exceed 100% where the denoiser computes in float32, as that is faster.
With --comfyui, the path of a checkout of ComfyUI: the same forward by its denoiser and, up to 1,024 tokens in
float32, by the literal one of the tests, with the same weights. Rounds alternate; rows hold medians.
On a machine with other work, `--threads 1 --clock cpu` counts the processor time of one thread.

    python benchmarks/denoiser_cpu.py
    python benchmarks/denoiser_cpu.py --comfyui ~/ComfyUI --blocks 2
    python benchmarks/denoiser_cpu.py --comfyui ~/ComfyUI --blocks 6 --width 256
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lens.core.products import cpu_compute_dtype
from lens.models.denoiser import LensTransformer2DModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))
import literal_denoiser

LEAST_SHARE, LEAST_RATIO = 0.6, 1.5
LITERAL_TOKENS = 1024  # beyond, its scores take gigabytes
Timed = dict[str, Callable[[], object]]


def main() -> int:
    options = parse()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    denoiser = random_denoiser(options)
    compute_dtype = cpu_compute_dtype(torch.empty(0, dtype=torch.bfloat16))
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {options.clock} time, {options.blocks} "
        f"blocks of width {options.width}, {options.text} text tokens, medians of {options.rounds}"
    )
    print(f"a denoiser in bfloat16 computes in {str(compute_dtype).removeprefix('torch.')} here")
    if options.comfyui is None:
        return compare_with_products(denoiser, options)
    return compare_with_others(denoiser, options)


def parse() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--blocks", type=int, default=4, help="blocks of the 48, 170 MB each")
    parser.add_argument("--width", type=int, default=1536, help="a multiple of 64; published: 1536")
    parser.add_argument("--sizes", type=int, nargs="+", default=(256, 512, 1024), help="pixels of a side")
    parser.add_argument("--text", type=int, default=115, help="text tokens")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--comfyui", type=Path, help="a checkout of ComfyUI")
    return parser.parse_args()


def random_denoiser(options: argparse.Namespace) -> LensTransformer2DModel:
    num_heads = options.width // 64
    with torch.device("meta"):
        denoiser = LensTransformer2DModel(
            num_layers=options.blocks, inner_dim=options.width, num_attention_heads=num_heads
        )
    denoiser = denoiser.to(torch.bfloat16).to_empty(device="cpu").eval()
    for name, parameter in denoiser.named_parameters():
        is_norm = "norm" in name and parameter.ndim == 1 and name.endswith("weight")
        parameter.normal_(0, 0.02).add_(float(is_norm))
    return denoiser


def inputs(side_px: int, num_text: int) -> tuple[Any, ...]:
    cells = side_px // 16
    features = [torch.randn(1, num_text, 2880) for _ in range(4)]
    return torch.randn(1, cells * cells, 128), features, None, torch.tensor([0.7]), [(1, cells, cells)]


def lens_call(denoiser: LensTransformer2DModel, arguments: tuple[Any, ...]) -> Callable[[], Tensor]:
    tokens, features, *rest = arguments
    cast = (tokens.to(denoiser.dtype), [layer.to(denoiser.dtype) for layer in features], *rest)
    return lambda: denoiser(*cast, return_dict=False)[0]


def compare_with_products(denoiser: LensTransformer2DModel, options: argparse.Namespace) -> int:
    print("share: of the rate of plain products; the last two columns count the operations of attention too")
    names = ("size", "tokens", "forward s", "s/block", "plain s", "plain TF/s", "lens TF/s", "share")
    print("".join(f"{name:>11}" for name in (*names, "lens TF/s", "share")))
    shares = []
    for side_px in options.sizes:
        call = lens_call(denoiser, inputs(side_px, options.text))
        shapes = product_shapes(denoiser, call)
        elapsed_s = rounds({"products": lambda s=shapes: run_products(s), "lens": call}, options)
        plain_s, lens_s = median(elapsed_s["products"]), median(elapsed_s["lens"])
        flops = sum(2 * rows * out * inner * count for (rows, out, inner), count in shapes.items())
        num_image = (side_px // 16) ** 2
        num_tokens, width = num_image + options.text, denoiser.config["inner_dim"]
        num_queries = (options.blocks - 1) * num_tokens + num_image  # the last block's text asks nothing
        all_flops = flops + 4 * num_queries * num_tokens * width
        share = median(a / b for a, b in zip(elapsed_s["products"], elapsed_s["lens"], strict=True))
        shares.append(share)
        plain, ours, both = (x / 1e12 for x in (flops / plain_s, flops / lens_s, all_flops / lens_s))
        numbers = (lens_s, lens_s / options.blocks, plain_s, plain, ours)
        row = f"{side_px:>11}{num_image:>11}" + "".join(f"{number:>11.3f}" for number in numbers)
        print(f"{row}{share:>11.0%}{both:>11.3f}{both / plain:>11.0%}", flush=True)
    return verdict(min(shares), LEAST_SHARE, "of the rate of plain products")


def product_shapes(denoiser: nn.Module, call: Callable[[], object]) -> Counter[tuple[int, int, int]]:
    """Return how often a forward multiplies (rows, outputs, inputs)."""
    shapes: Counter[tuple[int, int, int]] = Counter()

    def note(layer: nn.Linear, args: tuple[Tensor, ...]) -> None:
        shapes[args[0].numel() // layer.in_features, layer.out_features, layer.in_features] += 1

    layers = [layer for layer in denoiser.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return shapes


def run_products(shapes: Counter[tuple[int, int, int]]) -> None:
    for (rows, out, inner), count in shapes.items():
        x, weight = (torch.ones(each, inner, dtype=torch.bfloat16) for each in (rows, out))
        for _ in range(count):
            F.linear(x, weight)


def compare_with_others(denoiser: LensTransformer2DModel, options: argparse.Namespace) -> int:
    print("error: from Lens in float32, as a part of its length")
    names = ("dtype", "tokens", "other", "other s", "lens s", "ratio", "lens error", "other error")
    print("".join(f"{name:>12}" for name in names))
    ratios = []
    for dtype in (torch.bfloat16, torch.float32):
        for side_px in options.sizes:
            arguments = inputs(side_px, options.text)
            truth = lens_call(denoiser.float(), arguments)()
            exact_literal = literal_call(denoiser, arguments)
            denoiser.to(dtype)  # the values of bfloat16 in both dtypes
            other = comfyui_call(denoiser, arguments, options)
            sides: Timed = {"lens": lens_call(denoiser, arguments), "ComfyUI": other}
            if dtype == torch.float32 and truth.shape[1] <= LITERAL_TOKENS:
                sides["literal"] = exact_literal
            errors = {name: relative_error(call(), truth) for name, call in sides.items()}
            elapsed_s = rounds(sides, options)
            for name in list(sides)[1:]:
                ratio = median(a / b for a, b in zip(elapsed_s[name], elapsed_s["lens"], strict=True))
                ratios += [ratio] if name == "ComfyUI" else []
                labels = f"{str(dtype).removeprefix('torch.'):>12}{truth.shape[1]:>12}{name:>12}"
                seconds = "".join(f"{median(elapsed_s[each]):>12.3f}" for each in (name, "lens"))
                each_error = "".join(f"{errors[each]:>12.1e}" for each in ("lens", name))
                print(f"{labels}{seconds}{ratio:>12.2f}{each_error}", flush=True)
    return verdict(min(ratios), LEAST_RATIO, "times the rate of ComfyUI's denoiser")


def relative_error(value: Any, truth: Tensor) -> float:
    """Return the length of the difference from Lens in float32, by the length of that."""
    value = value.float()
    value = value.flatten(2).mT if value.ndim == 4 else value
    return ((value - truth).norm() / truth.norm()).item()


def literal_call(denoiser: LensTransformer2DModel, arguments: tuple[Any, ...]) -> Callable[[], Tensor]:
    tokens, features, _, t, [(_, h, w)] = arguments
    weights = {name: weight.clone() for name, weight in denoiser.state_dict().items()}
    mask = torch.ones(features[0].shape[:2], dtype=torch.bool)
    return lambda: literal_denoiser.velocity(weights, dict(denoiser.config), tokens, features, mask, t, h, w)


def comfyui_call(
    denoiser: LensTransformer2DModel, arguments: tuple[Any, ...], options: argparse.Namespace
) -> Callable[[], Tensor]:
    """Return the forward of ComfyUI's denoiser with the weights of ours and PyTorch's attention."""
    if str(options.comfyui) not in sys.path:
        sys.path.insert(0, str(options.comfyui))
    from comfy.cli_args import args  # pyright: ignore[reportMissingImports]

    args.cpu = args.use_pytorch_cross_attention = True
    import comfy.ops  # pyright: ignore[reportMissingImports]
    from comfy.ldm.lens.model import LensTransformer2DModel as Other  # pyright: ignore[reportMissingImports]

    tokens, features, _, t, [(_, h, w)] = arguments
    operations = comfy.ops.disable_weight_init
    other = Other(
        num_layers=options.blocks, num_attention_heads=options.width // 64, dtype=denoiser.dtype,
        operations=operations,
    ).eval()  # fmt: skip
    other.load_state_dict(denoiser.state_dict(), assign=True)
    latents = tokens.mT.unflatten(2, (h, w)).to(denoiser.dtype)                             # (1, C, h, w)
    context = torch.stack(features, dim=2).flatten(2).to(denoiser.dtype)                    # (1, T, L * E)
    return lambda: other(latents, t, context)


def rounds(calls: Timed, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each call in each round; calls alternate, after one round that fills caches."""
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    elapsed_s: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds + 1):
        for name, call in calls.items():
            started_at = clock()
            call()
            elapsed_s[name].append(clock() - started_at)
    return {name: times[1:] for name, times in elapsed_s.items()}


def verdict(least: float, goal: float, what: str) -> int:
    print(f"{'reached' if least >= goal else 'MISSED'}: at least {least:.2f} {what}; the goal is {goal}")
    return int(least < goal)


if __name__ == "__main__":
    raise SystemExit(main())
