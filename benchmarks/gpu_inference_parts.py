"""Parts of benchmarks/gpu_inference.py: what is measured, in which order, and how results are compared.

Free of torch. A result is one JSON line: the fields of its part, then what was measured or why it failed.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lens.config import read_recipe, write_yaml
from lens.train.cost.flops import forward_flops
from lens.train.cost.gpus import find_gpu_name

Row = dict[str, Any]

NUM_TEXT_TOKENS = 160
"""Text tokens of a prompt: the scaffold and a caption of about 100 words."""
MATMUL_FLOPS_PER_S = 790e12
"""What matrix products reach on an H100; the rate that shares are of."""
STEPS = {"lens": 20, "turbo": 4}
GOALS_S = {("lens", 1024): 1.3, ("turbo", 1024): 0.25}
PAPER_S = {("lens", 1024): 3.15, ("turbo", 1024): 0.84}
"""One H100, 1024 x 1024."""
ATTENTION_KERNELS = ("auto", "flash", "efficient", "cudnn", "fa3")


class Part(NamedTuple):
    """One measurement."""

    kind: str
    """attention: one call; draw: all steps; decode: the VAE; rung: a pipeline; encode: a text encoder."""
    variant: str = ""
    """lens, with guidance, or turbo, without; the rung, for rungs."""
    size: int = 1024
    weights: str = "bf16"
    """bf16; float8: weights alone; float8_dynamic: activations too, scaled by rows."""
    mode: str = "eager"
    """eager; blocks: each block compiled; whole: the denoiser compiled; graph: blocks, in a CUDA graph."""
    attention: str = "auto"
    """A kernel, or best: the fastest one that the parts before have found."""
    guidance: str = "two"
    """two: passes; padded: a batch of two with a mask; packed: both in one sequence without padding."""
    channels_last: bool = False
    estimate_s: float = 8
    """A cautious guess of its duration."""

    @property
    def name(self) -> str:
        default = Part._field_defaults
        values = [self.kind, self.variant, str(self.size), self.weights, self.mode]
        values += [self.attention] * (self.attention != default["attention"])
        values += [self.guidance] * (self.guidance != default["guidance"])
        return " ".join([one for one in values if one] + ["channels_last"] * self.channels_last)


def parts_to_measure() -> list[Part]:
    """Return all parts, the most valuable first."""
    compiled: dict[str, Any] = {"mode": "blocks", "attention": "best", "estimate_s": 70}
    graph = compiled | {"mode": "graph"}
    # With a mask some kernels refuse; compiled as a whole, the denoiser always has one.
    masked = compiled | {"attention": "auto"}
    packed, dynamic = {"guidance": "packed"}, {"weights": "float8_dynamic"}
    return [
        *(Part("attention", attention=kernel) for kernel in ATTENTION_KERNELS),
        Part("draw", "turbo"),
        Part("draw", "lens", estimate_s=20),
        Part("draw", "turbo", **compiled),
        Part("draw", "lens", **compiled),
        Part("draw", "turbo", **graph),
        Part("draw", "lens", **graph),
        Part("draw", "lens", **compiled, **packed),
        Part("draw", "turbo", **graph, **dynamic),
        Part("draw", "lens", **compiled, **packed, **dynamic),
        Part("decode"),
        Part("decode", channels_last=True),
        Part("decode", channels_last=True, mode="whole", estimate_s=60),
        Part("rung", "resident", estimate_s=20),
        Part("rung", "parts", estimate_s=30),
        Part("rung", "streamed", estimate_s=30),
        Part("draw", "turbo", 1440),
        Part("draw", "lens", 1440, estimate_s=30),
        Part("draw", "turbo", 1440, **compiled),
        Part("draw", "lens", 1440, **compiled),
        Part("draw", "lens", 1440, **compiled, **packed, **dynamic),
        Part("draw", "lens", **compiled, **dynamic),
        Part("draw", "lens", **masked, guidance="padded"),
        Part("draw", "lens", **compiled, weights="float8"),
        Part("draw", "turbo", **(masked | {"mode": "whole", "estimate_s": 120})),
        Part("draw", "turbo", 512, **graph),
        Part("draw", "lens", 512, **graph),
        Part("decode", size=1440),
        Part("encode", estimate_s=30),
    ]


def drawing_flops(config: Row, variant: str, size: int) -> float:
    """Return the useful operations of all steps for one image; a pass without text has no text tokens."""
    num_image = (size // 16) ** 2
    a_step = forward_flops(config, num_image, NUM_TEXT_TOKENS)
    if variant == "lens":
        a_step += forward_flops(config, num_image, 0)
    return float(STEPS[variant] * a_step)


def read_rows(path: Path | None, card: str) -> list[Row]:
    """Return the finished results of this card; a line that was cut off is left out."""
    rows = []
    for line in path.read_text().splitlines() if path is not None and path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("card") == card:
            rows.append(row)
    return rows


def append_row(path: Path, row: Row) -> None:
    """Add a result to a file; a line that was cut off there ends first."""
    text = path.read_text() if path.is_file() else ""
    path.write_text(text + "\n" * bool(text and not text.endswith("\n")) + json.dumps(row) + "\n")


def best_attention(rows: Iterable[Row]) -> str:
    """Return the fastest attention kernel that was measured; auto if none was."""
    done = [row for row in rows if row["kind"] == "attention" and "failed" not in row]
    return min(done, key=lambda row: row["s"])["attention"] if done else "auto"


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table: seconds, ratios to eager and to the paper, share of the rate, memory."""
    eager = {
        (row["kind"], row["variant"], row["size"]): row["s"]
        for row in rows
        if "failed" not in row and row["part"] == Part(row["kind"], row["variant"], row["size"]).name
    }
    lines = [f"{'':<58}{'s':>9}{'x eager':>9}{'x paper':>9}{'of 790T':>9}{'GiB':>7}"]
    for row in rows:
        if "failed" in row:
            lines.append(f"{row['part']:<58}  {row['failed']}")
            continue
        key = row["variant"], row["size"]
        paper = PAPER_S.get(key) if row["kind"] == "draw" else None
        base = eager.get((row["kind"], *key)) if row["kind"] in ("draw", "decode") else None
        columns = [
            f"{row['s']:9.4f}",
            f"{base / row['s']:9.2f}" if base else f"{'-':>9}",
            f"{paper / row['s']:9.2f}" if paper else f"{'-':>9}",
            f"{row['share']:9.1%}" if row.get("share") else f"{'-':>9}",
            f"{row['peak_memory_gib']:7.1f}",
        ]
        lines.append(f"{row['part']:<58}{''.join(columns)}")
    return lines


def conclusions(rows: Iterable[Row]) -> list[str]:
    """Return the fastest way for each goal."""
    lines = []
    for (variant, size), goal in GOALS_S.items():
        best = _fastest(rows, variant, size)
        if best is not None:
            lines.append(f"{variant} at {size}: {best['s']:.3f} s, goal {goal} s, by {best['part']}")
    return lines


def store_best(rows: Sequence[Row], folder: Path) -> str:
    """Write the fastest way of each variant and size into the card of this GPU; return a line for the log.

    What else the card holds stays. With float8 weights images differ, so the fastest in bf16 is kept too.
    """
    kind = find_gpu_name(rows[0]["card"]) if rows else None
    drawn = [row for row in rows if row["kind"] == "draw" and "failed" not in row]
    if kind is None or not drawn:
        return "nothing stored: no drawing on a known GPU was measured"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.yaml"
    card = read_recipe(path) if path.is_file() else {"card": rows[0]["card"]}
    best: dict[str, Any] = {}
    for variant, size in sorted({(row["variant"], row["size"]) for row in drawn}):
        found = {
            "any_weights": _fastest(drawn, variant, size),
            "bf16": _fastest([row for row in drawn if row["weights"] == "bf16"], variant, size),
        }
        best[f"{variant}_{size}"] = {name: _settings(row) for name, row in found.items() if row is not None}
    card["inference"] = {
        "date": rows[-1]["date"],
        "torch": rows[-1]["torch"],
        "measured_by": "benchmarks/gpu_inference.py",
        **best,
    }
    write_yaml(card, path)
    return f"stored {path}"


def _fastest(rows: Iterable[Row], variant: str, size: int) -> Row | None:
    alike = [
        row for row in rows
        if (row["kind"], row["variant"], row["size"]) == ("draw", variant, size) and "failed" not in row
    ]  # fmt: skip
    return min(alike, key=lambda row: row["s"], default=None)


def _settings(row: Row) -> Row:
    return {
        "s": round(row["s"], 4),
        **{name: row[name] for name in ("weights", "mode", "guidance")},
        "attention": row["attention_used"],
        "peak_memory_gib": round(row["peak_memory_gib"], 1),
    }
