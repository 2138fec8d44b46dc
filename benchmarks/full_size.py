"""The full-size model on this machine: seconds and peak memory of each layout and rung of the memory ladder.

    python scripts/make_full_size.py FILES --layout folder single-mxfp8 encoder-nvfp4 gguf-q4_0 vae-flux2
    python benchmarks/full_size.py FILES [--sizes 256 512 1024] [--cases NAME ...] [--out results.jsonl]

Weights are random, so images show nothing; sizes, loading, memory and speed are as with true weights. A row
is a process of its own: peak memory is that of the whole process, mapped pages included. The first size of a
case encodes its prompt; the others find the text features on disk. A row that is in --out is not run again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PROMPT = "a fox in the snow, seen from the side, under a low winter sun"
NVFP4, VAE = "text_encoders/gpt_oss_20b_nvfp4.safetensors", "vae/flux2-vae.safetensors"
CASES = {
    "folder bf16 + MXFP4, auto": {"model": "lens", "memory": "auto"},
    "folder bf16 + MXFP4, 8GB": {"model": "lens", "memory": "8GB"},
    "MXFP8 + NVFP4, auto": {"model": "diffusion_models/lens_mxfp8.safetensors", "memory": "auto"},
    "MXFP8 + NVFP4, 8GB": {"model": "diffusion_models/lens_mxfp8.safetensors", "memory": "8GB"},
    "MXFP8 + NVFP4, 4GB": {"model": "diffusion_models/lens_mxfp8.safetensors", "memory": "4GB"},
    "GGUF q4_0 + NVFP4, 4GB": {"model": "diffusion_models/lens_q4_0.gguf", "memory": "4GB"},
    "GGUF q8_0 + NVFP4, 8GB": {"model": "diffusion_models/lens_q8_0.gguf", "memory": "8GB"},
}
NUM_STEPS = 2
COLUMNS = ("case", "size", "text", "rung", "encoding_s", "first_step_s", "step_s", "decoding_s", "peak_gb")


@dataclass
class Clock:
    """The times of the reports of a generation; it stands in for the progress bar of the command."""

    started_at: float = field(default_factory=time.perf_counter)
    marks: list[tuple[str, int, float]] = field(default_factory=list)

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.marks.append((stage, done, time.perf_counter() - self.started_at))

    def start_image(self, number: int) -> None:
        self("loading", number, 1)

    def seconds(self, stage: str) -> list[float]:
        """Return when each report of a stage came."""
        return [at for name, done, at in self.marks if name == stage and done > 0]


def run_case(files: Path, name: str, side: int) -> dict[str, object]:
    """Generate one image in this process and return its row."""
    from lens.cli.generation.loading import GenerationSession
    from lens.cli.generation.request import GenerateArguments
    from lens.cli.generation.run import generate_images

    case, rungs = CASES[name], []
    choose = GenerationSession._choose_rung

    def note_rung(self: GenerationSession, size: tuple[int, int]):
        rungs.append(choose(self, size))
        return rungs[-1]

    GenerationSession._choose_rung = note_rung  # type: ignore[method-assign]
    parts = {} if case["model"] == "lens" else {"text_encoder": files / NVFP4, "vae": files / VAE}
    arguments = GenerateArguments(
        prompts=[PROMPT], model=str(files / case["model"]), size=f"{side}x{side}", steps=NUM_STEPS,
        guidance=1.0, memory=case["memory"], text_cache="on", **parts,
    )  # fmt: skip
    clock = Clock()
    for generated in generate_images([arguments.check()], clock):  # type: ignore[arg-type]
        assert generated.image.size == (side, side)
    encoding, steps = clock.seconds("encoding"), clock.seconds("denoising")
    loaded = clock.seconds("loading")[0]
    return {
        "case": name,
        "size": side,
        "text": "encoded" if encoding else "cached",
        "rung": rungs[0].name,
        "encoding_s": round(encoding[-1], 1) if encoding else None,
        "first_step_s": round(steps[0], 1),
        "step_s": round((steps[-1] - steps[0]) / (len(steps) - 1), 1),
        "decoding_s": round(clock.seconds("decoding")[-1] - steps[-1], 1),
        "load_s": round(loaded - (encoding[-1] if encoding else 0.0), 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, help="folder that scripts/make_full_size.py wrote")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, help="JSON lines; rows that are there are not run again")
    parser.add_argument("--row", nargs=2, metavar=("CASE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(run_case(options.files, options.row[0], int(options.row[1]))))
        return
    done = (
        [json.loads(line) for line in options.out.read_text().splitlines()]
        if options.out and options.out.is_file()
        else []
    )
    print(" | ".join(COLUMNS))
    for name in options.cases:
        with tempfile.TemporaryDirectory() as cache:
            for side in options.sizes:
                row = next((one for one in done if (one["case"], one["size"]) == (name, side)), None)
                row = row or measure(options.files, name, side, cache)
                if options.out and row not in done:
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                print(" | ".join(str(row.get(column, "")) for column in COLUMNS), flush=True)


def measure(files: Path, name: str, side: int, cache: str) -> dict[str, object]:
    """Return the row of one process; a failure is a row too."""
    # Hashes of files are kept, as a user's second command has them; text features start anew.
    environment = os.environ | {"LENS_CACHE": cache}
    command = [sys.executable, __file__, str(files), "--row", name, str(side)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        return {"case": name, "size": side, "rung": finished.stderr.strip().splitlines()[-1][:200]}
    return json.loads(finished.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
