"""The benchmark of training on a GPU, in small."""

import json
import sys


def test_it_compares_every_way_with_examples_in_main_memory(load, tmp_path, monkeypatch, capsys):
    path = tmp_path / "out.json"
    arguments = ["--tiny", "--steps", "2", "--batch", "4", "--examples", "16", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["nano_gpu_training.py", *arguments])
    assert load("nano_gpu_training").main() == 0
    ways = json.loads(path.read_text())["ways"]
    assert [way["name"] for way in ways] == ["main memory", "resident", "resident, captured"]
    assert all(way["samples_per_s"] > 0 for way in ways)
    assert "1.00x" in capsys.readouterr().out
