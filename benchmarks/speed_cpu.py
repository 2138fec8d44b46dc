"""Time the denoiser against the literal re-implementation of the tests, in one run, at equal float32 results.

One row a kind of call; the guided step is what sampling does at guidance above 1: a pass with the prompt and
a pass without text. Times are the least of interleaved calls: both sides meet the same load of the machine.

    python benchmarks/speed_cpu.py                                  # the nano denoiser's size at 512 px
    python benchmarks/speed_cpu.py --cells 16 16 --repeats 20       # at 256 px, where products weigh more
    python benchmarks/speed_cpu.py --width 768 --layers 4 --repeats 3
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from lens.models.denoiser import LensTransformer2DModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))
import literal_denoiser

LEAST_RATIO = 1.3
LARGEST_DIFFERENCE = 1e-4


def main() -> int:
    options = parsed()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    denoiser = small_denoiser(options)
    rows, columns = options.cells
    print(f"torch {torch.__version__}, {options.threads} thread(s), float32, width {options.width}, "
          f"{options.layers} blocks, {rows} x {columns} cells, {options.text} text tokens")
    print(f"{'call':<28}{'literal ms':>12}{'lens ms':>10}{'ratio':>8}{'max difference':>16}")
    prompt, no_text, padded = (measured(name, denoiser, inputs, options) for name, inputs in calls(options))
    literal_ms, lens_ms = prompt[0] + no_text[0], prompt[1] + no_text[1]
    difference = max(prompt[2], no_text[2], padded[2])
    show("guided step (first two)", literal_ms, lens_ms, difference)
    if literal_ms / lens_ms < LEAST_RATIO or difference > LARGEST_DIFFERENCE:
        print(f"MISSED: needs {LEAST_RATIO}x on the guided step and differences up to {LARGEST_DIFFERENCE:g}")
        return 1
    return 0


def parsed() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--width", type=int, default=256, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--cells", type=int, nargs=2, default=(32, 32), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--text", type=int, default=48, help="text tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def small_denoiser(options: argparse.Namespace) -> LensTransformer2DModel:
    denoiser = LensTransformer2DModel(
        in_channels=64, out_channels=16, num_layers=options.layers, num_attention_heads=options.width // 64,
        inner_dim=options.width, enc_hidden_dim=192, selected_layer_index=(1, 3, 5, 7),
    )
    return denoiser.eval()


def calls(options: argparse.Namespace):
    """Yield a name and inputs for each kind of call: the prompt, no text, a padded batch of prompts."""
    for name, lengths in (
        ("prompt, batch 1", [options.text]),
        ("no text, batch 1", [0]),
        ("padded prompts, batch 2", [options.text, options.text // 2]),
    ):
        num_tokens, batch = options.cells[0] * options.cells[1], len(lengths)
        mask = torch.arange(options.text)[None] < torch.tensor(lengths)[:, None]
        features = [torch.randn(batch, options.text, 192) * mask[..., None] for _ in range(4)]
        yield name, (torch.randn(batch, num_tokens, 64), features, mask, torch.rand(batch))


@torch.no_grad()
def measured(name: str, denoiser: LensTransformer2DModel, inputs: tuple, options: argparse.Namespace):
    tokens, features, mask, t = inputs
    weights, config, cells = denoiser.state_dict(), dict(denoiser.config), tuple(options.cells)
    sides = (
        lambda: literal_denoiser.velocity(weights, config, tokens, features, mask, t, *cells),
        lambda: denoiser(tokens, features, mask, t, [(1, *cells)]).sample,
    )
    difference = (sides[0]() - sides[1]()).abs().max().item()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(options.repeats):
        for side, spent in zip(sides, times, strict=True):
            started_at = time.perf_counter()
            side()
            spent.append(1e3 * (time.perf_counter() - started_at))
    row = min(times[0]), min(times[1]), difference
    show(name, *row)
    return row


def show(name: str, literal_ms: float, lens_ms: float, difference: float) -> None:
    print(f"{name:<28}{literal_ms:>12.1f}{lens_ms:>10.1f}{literal_ms / lens_ms:>8.2f}{difference:>16.1e}")


if __name__ == "__main__":
    raise SystemExit(main())
