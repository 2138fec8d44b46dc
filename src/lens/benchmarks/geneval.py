"""GenEval: 553 short prompts of six tasks, four images each."""

from collections.abc import Mapping
from pathlib import Path

from lens.benchmarks.base import Benchmark, BenchmarkPrompt, DataFile
from lens.text_files import read_json_lines

REVISION = "af4902f24d3ca90ebbb446dd9891a59e0f82725f"
METADATA = "evaluation_metadata.jsonl"
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""Colours of prompts, in the order in which the scorer breaks ties."""
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote",
    "computer keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO in its order, by the names of this benchmark."""


def _read(paths: Mapping[str, Path]) -> list[BenchmarkPrompt]:
    rows = read_json_lines(paths[METADATA], "--data", "a readable UTF-8 file of JSON lines")
    prompts = []
    for number, (_, row) in enumerate(rows):
        facts = {"prompt_id": number, "tag": row["tag"], "include": row["include"]}
        facts["exclude"] = row.get("exclude", [])
        prompts.append(BenchmarkPrompt(f"{number:05d}", row["prompt"], row["tag"], facts))
    return prompts


GENEVAL = Benchmark(
    name="geneval",
    title="GenEval",
    licence="MIT",
    files=(
        DataFile(
            METADATA,
            "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
            f"https://raw.githubusercontent.com/djghosh13/geneval/{REVISION}/prompts/{METADATA}",
        ),
    ),
    read=_read,
    num_images=4,
    image_name=lambda prompt, repeat: f"{prompt.key}/samples/{repeat:04d}.png",
    scorers=("geneval",),
    notes=(
        "The official generator draws each prompt from seed 42; here each prompt has seeds of its own.",
        "Thresholds 0.3 and 0.9 are those of Mask2Former of mmdetection 2: other detectors do not compare.",
        "Prompts that a language model rewrites gain 3 to 9 points: such rows have a column of their own.",
    ),
)
