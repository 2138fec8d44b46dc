"""`lens eval list, fetch, run, report`: a benchmark from prompts to a page, told before anything is drawn."""

import json

import pytest

LINES = [
    {"category": "sign", "length": "short", "prompt": 'a sign that says "OPEN"', "text": ["OPEN"]},
    {"category": "sign", "length": "short", "prompt": 'a sign that says "TO LET"', "text": ["TO LET"]},
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """Two invented prompts in the form of LongText-Bench, one in each language."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, row in zip(("text_prompts.jsonl", "text_prompts_zh.jsonl"), LINES, strict=True):
        (folder / name).write_text(json.dumps(row | {"prompt_id": 7}) + "\n")
    return folder


def test_a_benchmark_runs_from_prompts_to_a_page_and_a_second_call_draws_nothing(lens, data, tmp_path):
    typed = ["eval", "run", "longtext", "--data", data, "--model", "lens-nano-turbo", "--images", 2,
             "--steps", 1, "--size", "96x64", "--out", tmp_path / "run"]  # fmt: skip
    ran = lens(*typed, "--json")
    assert ran.status == 0, ran
    found = json.loads(ran.out)
    assert (found["benchmark"], found["num_images"], found["num_planned"]) == ("longtext", 4, 4)
    assert set(found["parts"]) == {"en", "zh"} and found["column"] == "prompts as published"
    assert any("RapidOCR" in note for note in found["notes"])
    images = sorted((tmp_path / "run" / "images").rglob("*.png"))
    assert [path.relative_to(tmp_path / "run").as_posix() for path in images] == [
        "images/en/7_0.png", "images/en/7_1.png", "images/zh/7_0.png", "images/zh/7_1.png",
    ]  # fmt: skip
    times = [path.stat().st_mtime_ns for path in images]
    again = lens(*typed)
    assert again.status == 0 and "headline" in again.out and again.out.endswith("report.html\n")
    assert [path.stat().st_mtime_ns for path in images] == times
    other = lens(*typed[:-2], "--out", tmp_path / "run", "--seed", 3)
    assert "seed 0, not 3" in other.error_line
    images[0].unlink()
    assert lens("eval", "observe", tmp_path / "run").status == 0
    assert "--allow-missing" in lens("eval", "report", tmp_path / "run").error_line
    assert "1 of 4 images are missing" in lens("eval", "report", tmp_path / "run", "--allow-missing").out


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["run", "genevl"], "BENCHMARK is 'genevl'"),
        (["run", "geneval", "--observer", "rapidocr"], "but it needs ssd for geneval"),
        (["run", "geneval"], "Run: lens eval fetch ssd"),
        (["run", "dpg"], "--judge-url is None"),
        (["generate", "longtext"], "lens eval fetch longtext"),
        (["fetch", "dpg"], "--data PATH"),
        (["observe", "nowhere"], "the folder of a run"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_drawn(lens, monkeypatch, tmp_path, typed, told):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    ran = lens("eval", *typed)
    assert ran.status == 2 and told in ran.error_line
    assert not (tmp_path / "runs").exists()


def test_the_list_says_where_files_are_and_what_differs_from_official_scripts(lens, monkeypatch, tmp_path):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path))
    out = lens("eval", "list").out
    assert "not here: lens eval fetch geneval" in out and "by --data PATH" in out and "oneig_text" in out
    assert "seed 42" in lens("eval", "list", "geneval").out
    assert json.loads(lens("eval", "list", "cvtg", "--json").out)["images_a_prompt"] == 1
