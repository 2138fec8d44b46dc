"""`lens rl prompts` and `lens rl rubrics`, killed as processes, against a real server on this machine."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from writing_server import WritingServer

from lens.cli.main import main
from lens.rl.prompts.dataset import GLOBAL_CRITERION, read_prompts

COUNT = 200


@pytest.fixture
def server():
    started = WritingServer()
    yield started
    started.close()


@pytest.fixture
def finished(capsys):
    """Run the command here to its end, and return its result."""

    def run(word: str, recipe: Path, *more: str) -> dict:
        assert main(["rl", word, str(recipe), "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def started(word: str, recipe: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "lens", "rl", word, str(recipe)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def wait_for_lines(path: Path, count: int) -> None:
    until = time.monotonic() + 30
    while num_lines(path) < count:
        assert time.monotonic() < until, f"{num_lines(path)} lines in {path}"
        time.sleep(0.01)


def killed_after(num_answers: int, word: str, recipe: Path, answers: Path, server: WritingServer) -> None:
    """Run until so many answers are kept while others are on their way, and kill."""
    server.answers_left = num_answers
    process = started(word, recipe)
    wait_for_lines(answers, num_answers)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.go_on()


def write_recipe(folder: Path, server: WritingServer) -> Path:
    recipe = folder / "prompts.yaml"
    endpoint = f'{{url: "{server.url}", model: writer, first_wait_s: 0.01}}'
    model = f"{{endpoint: {endpoint}, price_of_million_tokens: [2.0, 10.0]}}"
    recipe.write_text(f"source: taxonomy\nout: {folder / 'set'}\ncount: {COUNT}\nmodel: {model}\n")
    return recipe


def test_a_killed_and_resumed_run_makes_a_valid_set_and_no_call_twice(tmp_path, server, finished):
    recipe, out = write_recipe(tmp_path, server), tmp_path / "set"

    killed_after(90, "prompts", recipe, out / "prompt_answers.jsonl", server)
    assert not (out / "prompts.jsonl").exists()
    summary = finished("prompts", recipe)
    num_asked = len(server.answered)
    assert len(set(server.answered)) == num_asked == num_lines(out / "prompt_answers.jsonl")
    assert summary["calls"] == num_asked - 90
    assert summary["answers"] == num_asked > COUNT  # some answers were wrong, and asked for again
    assert summary["cost"] == pytest.approx(num_asked * (100 * 2.0 + 50 * 10.0) / 1e6)

    prompts = read_prompts(out / "prompts.jsonl")
    assert len({one.prompt for one in prompts}) == COUNT
    assert set(summary["by_category"].values()) == {COUNT // 10}
    for one in prompts:
        assert 30 <= len(one.prompt.split()) <= 60
        assert all(point in one.prompt for point in one.keypoints)
        assert 1 <= len(one.dimensions) <= 4
        assert (one.text is not None) == ("text" in one.dimensions)

    killed_after(70, "rubrics", recipe, out / "rubric_answers.jsonl", server)
    rubrics = finished("rubrics", recipe)
    assert rubrics["prompts"] == COUNT
    num_asked += num_lines(out / "rubric_answers.jsonl")
    assert len(set(server.answered)) == len(server.answered) == num_asked
    whole = read_prompts(out / "rubrics.jsonl")
    assert [one.model_copy(update={"rubric": {}}) for one in whole] == prompts
    assert all(4 <= len(one.rubric) <= 11 and GLOBAL_CRITERION in one.rubric for one in whole)

    again = finished("rubrics", recipe)
    assert again["calls"] == 0 and len(server.answered) == num_asked
    assert {**again, "calls": None} == {**rubrics, "calls": None}


def test_a_run_that_is_asked_to_stop_keeps_the_answers_on_their_way(tmp_path):
    server = WritingServer(delay_s=0.3)
    try:
        recipe, answers = write_recipe(tmp_path, server), tmp_path / "set" / "prompt_answers.jsonl"
        process = started("prompts", recipe)
        wait_for_lines(answers, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
        assert 8 <= num_lines(answers) == len(server.answered) < COUNT
    finally:
        server.close()


def test_the_nano_recipe_makes_its_set_without_any_endpoint(tmp_path, finished):
    recipe = Path(__file__).parents[2] / "recipes" / "nano" / "rl_prompts.yaml"
    settings = "--set", f"out={tmp_path}", "--set", "count=60"
    summary = finished("prompts", recipe, *settings)
    assert summary["overlaps"] == [] and set(summary["by_category"].values()) == {10}
    prompts = read_prompts(Path(summary["path"]))
    assert len(prompts) == 60
    assert read_prompts(Path(finished("rubrics", recipe, *settings)["path"])) == prompts


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("source=web", "source is 'web'"),
        ("kinds=[single, several]", "kinds is"),
        ("benchmarks=[nowhere.txt]", "benchmarks is 'nowhere.txt'"),
        ("colour=red", "colour is 'red'"),
    ],
)
def test_a_bad_recipe_is_told_in_one_line(tmp_path, capsys, change, told):
    recipe = tmp_path / "prompts.yaml"
    recipe.write_text(f"source: nano\nout: {tmp_path / 'set'}\ncount: 6\n")
    assert main(["rl", "prompts", str(recipe), "--set", change]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and told in output.err
    assert not (tmp_path / "set").exists()


def test_rubrics_without_prompts_say_how_to_make_them(tmp_path, capsys):
    recipe = tmp_path / "prompts.yaml"
    recipe.write_text(f"source: nano\nout: {tmp_path / 'set'}\ncount: 6\n")
    assert main(["rl", "rubrics", str(recipe)]) == 2
    assert "`lens rl prompts RECIPE` makes one" in capsys.readouterr().err
