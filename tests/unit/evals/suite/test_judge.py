"""A judge at an endpoint answers questions; what it does not answer is told and counts as wrong."""

import json

import numpy as np
import pytest
from local_server import Server
from PIL import Image

from lens.benchmarks.base import BenchmarkPrompt
from lens.benchmarks.registry import BENCHMARKS
from lens.evals.observers.judge import MAX_FAILURES, JudgeDownError, VlmJudge, normalize_answer
from lens.evals.suite.observation import Observers, observe_run
from lens.evals.suite.run_folder import EvalRunSettings, RunFolder
from lens.evals.suite.scoring import score_run
from lens.llm.client import Endpoint

QUESTIONS = {"1": "Is there a cup?", "2": "Is it red?"}


def reply(text):
    return 200, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()


class Judge(Server):
    """Says yes to questions about a cup, and to others what a test sets."""

    other = reply("No.")

    def answer_to(self, body):
        text = body["messages"][0]["content"][1]["text"]
        return reply(" Yes. ") if "cup" in text else self.other


@pytest.fixture
def server():
    judge = Judge()
    yield judge
    judge.close()


def vlm(server, tmp_path):
    endpoint = Endpoint(url=server.url, model="seer", max_attempts=1, first_wait_s=0)
    return VlmJudge(endpoint, tmp_path / "answers.jsonl", concurrency=2)


def picture(level=200):
    return Image.fromarray(np.full((4, 6, 3), level, np.uint8))


def test_each_question_is_asked_once_about_one_image(server, tmp_path):
    judge = vlm(server, tmp_path)
    assert judge.ask_all(picture(), QUESTIONS).answers == {"1": "yes", "2": "no"}
    assert vlm(server, tmp_path).ask_all(picture(), QUESTIONS).answers == {"1": "yes", "2": "no"}
    assert len(server.asked) == 2
    judge.ask_all(picture(100), QUESTIONS)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("text", "answer"),
    [("Yes", "yes"), (' "No!" ', "no"), ("Ja", "Ja"), ("I can't.", "I can't."), ("yes, it is", "yes, it is")],
)
def test_an_answer_counts_only_if_it_is_the_word(text, answer):
    assert normalize_answer(text) == answer


def run_of(tmp_path):
    run = RunFolder(tmp_path / "run")
    facts = {
        "prompt_id": "a", "questions": QUESTIONS, "dependency": {"1": [0], "2": [1]},
        "category": {"1": "entity - whole", "2": "attribute - color"},
    }  # fmt: skip
    values = {
        "benchmark": "dpg", "data_hash": "d", "has_official_data": False, "model": "m", "model_hash": "h",
        "steps": 1, "guidance": 1.0, "solver": "euler", "width": 6, "height": 4, "seed": 0, "num_images": 1,
        "limit": None,
    }  # fmt: skip
    run.start(EvalRunSettings(**values), [BenchmarkPrompt("a", "a red cup", "all", facts)])
    run.images.mkdir()
    picture().save(run.images / "a_0.png")
    return run


def test_a_question_without_an_answer_counts_as_wrong_and_is_told(server, tmp_path):
    server.other = 400, b"no"
    run = run_of(tmp_path)
    observers = Observers(judge=vlm(server, tmp_path))
    count = observe_run(run, BENCHMARKS["dpg"], "dpg", observers, lambda *_: None)
    assert count.unanswered == ["a_0.png"]
    (found,) = score_run(run, BENCHMARKS["dpg"])
    assert found.score.headline == 50
    assert "1 questions have no answer and count as wrong" in found.notes
    assert any("judge seer" in note for note in found.notes)


def test_a_judge_that_is_down_ends_the_run_instead_of_scoring_it_as_wrong(server, tmp_path):
    server.other = 500, b"down"
    judge = vlm(server, tmp_path)
    many = {str(number): f"Is it number {number}?" for number in range(MAX_FAILURES + 3)}
    with pytest.raises(JudgeDownError, match="it goes on"):
        judge.ask_all(picture(), many)
