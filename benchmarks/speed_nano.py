"""Time one 20-step picture by lens-nano at base 128: in a pipeline that is loaded, and as a whole command.

Each is held against the time that was promised for two cores. Medians of several runs.

    python benchmarks/speed_nano.py
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

PROMPT = "two red apples to the left of a fox, on a blue background"
LOADED_LIMIT_S = 1.5
COMMAND_LIMIT_S = 6.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), median of {repeats}")
    print(f"{'what':<20}{'seconds':>10}{'promised':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        rows = (
            ("loaded pipeline", loaded_pipeline(), LOADED_LIMIT_S),
            ("whole command", whole_command(Path(folder)), COMMAND_LIMIT_S),
        )
        spent = [(name, median_s(call, repeats), limit_s) for name, call, limit_s in rows]
    for name, seconds, limit_s in spent:
        print(f"{name:<20}{seconds:>10.2f}{limit_s:>10.1f}{seconds / limit_s:>8.2f}")
    return int(any(seconds > limit_s for _, seconds, limit_s in spent))


def loaded_pipeline() -> Callable[[], object]:
    from lens import LensPipeline

    pipeline = LensPipeline.from_pretrained("lens-nano", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(PROMPT, num_inference_steps=20, generator=torch.Generator().manual_seed(7))


def whole_command(folder: Path) -> Callable[[], object]:
    command = [sys.executable, "-m", "lens", "generate", PROMPT, "--seed", "7", "--out", str(folder)]
    return lambda: subprocess.run(command, check=True, capture_output=True)


def median_s(call: Callable[[], object], repeats: int) -> float:
    call()  # the first one fills caches
    times = []
    for _ in range(repeats):
        started_at = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_at)
    return statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
