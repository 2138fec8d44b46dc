"""CVTG-2K: two to five texts in one image, 2,000 prompts, one image each."""

from collections.abc import Mapping
from pathlib import Path

from lens.benchmarks.base import Benchmark, BenchmarkPrompt, DataFile
from lens.errors import SettingError
from lens.text_files import read_json

HASHES = {
    "CVTG/2.json": "e8aa98a4f5d609f8699131328876760fbbf33db8320770188fc3979f3fa345c8",
    "CVTG/3.json": "36fca11a221236643ed9595d5302884db01e832309a61b230fab3eefdeff1be0",
    "CVTG/4.json": "24fb02addf2caae050d2e67e29af98fe10d1e086093cf43d3592bcdac8557c2c",
    "CVTG/5.json": "24d5a3afc060477cdcf5b678018d81c78e18dc0054aafacf8b02a69ae24118b2",
    "CVTG-Style/2.json": "61324577c690c4383597fffe53614d87088be108a3e577288d8e8baf71381489",
    "CVTG-Style/3.json": "26a92b4a53e5dc497317fb3a219121790b7a7c9da10b87b8dd3633fcadff0f97",
    "CVTG-Style/4.json": "1d1fe6c367191fd8a3939687f70b3e8bda83c0539344977506e09e2732e4e3ff",
    "CVTG-Style/5.json": "da102c0239726d1fcdf3f4cfccacd34e71d4c0a588e5a893f4bc94b03fff353a",
}
REVISION = "b58a62f4a301370f35c5873bcb453bf7eea9f0e4"
ADDRESS = f"https://raw.githubusercontent.com/zlab-princeton/i1/{REVISION}/benchmark_eval/cvtg-2k/prompts"
"""A copy of the published files at a revision; their own address has none."""


def _read(paths: Mapping[str, Path]) -> list[BenchmarkPrompt]:
    prompts = []
    for name, path in paths.items():
        group, regions = name.removesuffix(".json").split("/")
        document = read_json(path, "--data")
        if not isinstance(document, dict) or "data_list" not in document:
            raise SettingError("--data", str(path), "a JSON object with data_list")
        for row in document["data_list"]:
            facts = {"group": group, "regions": int(regions), "index": row["index"], "prompt": row["prompt"]}
            key = f"{group}/{regions}/{row['index']}"
            prompts.append(BenchmarkPrompt(key, row["prompt"], f"{group}/{regions}", facts))
    return prompts


CVTG = Benchmark(
    name="cvtg",
    title="CVTG-2K",
    licence="Apache-2.0",
    files=tuple(DataFile(name, sha256, f"{ADDRESS}/{name}") for name, sha256 in HASHES.items()),
    read=_read,
    num_images=1,
    image_name=lambda prompt, repeat: f"{prompt.key}{f'_{repeat}' if repeat else ''}.png",
    scorers=("cvtg",),
    notes=(
        "The official reader is PaddleOCR 2.10 with English models; with another reader no number compares.",
        "A word that is not read at all still gets about 0.00001, as in the official script.",
    ),
)
