"""LongText-Bench: long texts in images, 160 prompts in English and 160 in Chinese, four images each."""

from collections.abc import Mapping
from pathlib import Path

from lens.benchmarks.base import Benchmark, BenchmarkPrompt, DataFile
from lens.text_files import read_json_lines

REVISION = "2b8237bb3789638c290eeda3e83ed81bd3652c3b"
FILES = {"en": "text_prompts.jsonl", "zh": "text_prompts_zh.jsonl"}
HASHES = {
    "en": "a2130769e72bd8560470a066114cdac87f80f1eb071ba6bc0f7033225a9be0d8",
    "zh": "6512cd121ac093e8113e114d76eb2c0ce967c220b18e2049e1063554ce496758",
}
ADDRESS = f"https://raw.githubusercontent.com/X-Omni-Team/X-Omni/{REVISION}/textbench"


def _read(paths: Mapping[str, Path]) -> list[BenchmarkPrompt]:
    prompts = []
    for language, name in FILES.items():
        for _, row in read_json_lines(paths[name], "--data", "a readable UTF-8 file of JSON lines"):
            facts = {"prompt_id": row["prompt_id"], "language": language, "text": row["text"]}
            prompts.append(BenchmarkPrompt(f"{language}/{row['prompt_id']}", row["prompt"], language, facts))
    return prompts


LONGTEXT = Benchmark(
    name="longtext",
    title="LongText-Bench",
    licence="Apache-2.0",
    files=tuple(DataFile(name, HASHES[key], f"{ADDRESS}/{name}") for key, name in FILES.items()),
    read=_read,
    num_images=4,
    image_name=lambda prompt, repeat: f"{prompt.key}_{repeat}.png",
    scorers=("longtext",),
    notes=(
        "The official reader is Qwen2.5-VL-7B; with another reader no number compares.",
        "Marks are deleted before words are counted, so a line break inside a word with hyphens loses it.",
        "The official clean-up takes out one of its two phrases alone; `official` scores do the same.",
    ),
)
