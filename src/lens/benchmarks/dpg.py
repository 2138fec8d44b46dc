"""DPG-Bench: 1,065 dense prompts, four images each. Its table of questions comes from the user."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from lens.benchmarks.base import Benchmark, BenchmarkPrompt, DataFile
from lens.errors import SettingError
from lens.text_files import read_text

QUESTIONS = "dpg_bench.csv"
COLUMNS = (
    "item_id", "text", "proposition_id", "dependency", "category_broad", "category_detailed",
    "question_natural_language",
)  # fmt: skip


def _read(paths: Mapping[str, Path]) -> list[BenchmarkPrompt]:
    """Return the prompts of the table of questions, whose first row the official script drops."""
    text = read_text(paths[QUESTIONS], "--data", "a readable UTF-8 table of questions")
    table = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
        raise SettingError("--data", str(paths[QUESTIONS]), f"a column {missing[0]}")
    prompts: dict[str, BenchmarkPrompt] = {}
    for row in table:
        item, number = row["item_id"], row["proposition_id"].strip()
        if item not in prompts:
            facts: dict[str, dict[str, object]] = {"questions": {}, "dependency": {}, "category": {}}
            prompts[item] = BenchmarkPrompt(item, row["text"], "all", {"prompt_id": item, **facts})
        found = prompts[item].facts
        found["questions"][number] = row["question_natural_language"]
        found["dependency"][number] = [int(one) for one in row["dependency"].split(",")]
        narrow = row["category_detailed"].strip()
        broad = row["category_broad"].strip()
        found["category"][number] = f"{broad} - {narrow}" if narrow and narrow != broad else broad
    return list(prompts.values())


DPG = Benchmark(
    name="dpg",
    title="DPG-Bench",
    licence="Apache-2.0; take dpg_bench.csv from the repository TencentQQGYLab/ELLA (dpg_bench/).",
    files=(DataFile(QUESTIONS),),
    read=_read,
    num_images=4,
    image_name=lambda prompt, repeat: f"{prompt.key}_{repeat}.png",
    scorers=("dpg",),
    notes=(
        "The official judge is mPLUG large; with another judge no number compares.",
        "The official script drops the first question of its table, and cuts images out of grids of 2 x 2.",
        "Failed questions make those that depend on them fail, down to grandchildren.",
    ),
)
