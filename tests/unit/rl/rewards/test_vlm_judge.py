"""The judge asks a real server on this machine, one criterion a call, and takes no failure for a zero."""

import base64
import io
import json
import math
import re
from contextlib import ExitStack, closing

import numpy as np
import pytest
from local_server import Server
from PIL import Image

from lens.errors import LensError
from lens.llm.client import ChatClient, ChatResponse, Endpoint
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.factory import create_reward
from lens.rl.rewards.pool import RewardExecutor, gather_scores
from lens.rl.rewards.settings import VlmJudgeSettings
from lens.rl.rewards.vlm_judge import VlmJudgeReward, criterion_score

RUBRIC = {"fox": "There is a fox.", "snow": "It snows.", "coherent": "The whole image is coherent."}
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
PROMPT = RLPrompt(prompt="a fox in {snow}", category="animal", item="fox", rubric=RUBRIC)
FAIL, HANG = (500, b""), 0.8


class Seer(Server):
    """Answers by criterion: a text, a whole choice of the API, FAIL or HANG; in turn where it is a list."""

    def __init__(self, **answers):
        super().__init__()
        self.criteria: list[str] = []
        """Asked for, in order."""
        self._turns = {name: one if isinstance(one, list) else [one] for name, one in answers.items()}
        is_silent = any(HANG in turns for turns in self._turns.values())
        self.endpoint = Endpoint(
            url=self.url, model="seer", max_attempts=3,
            timeout_s=0.3 if is_silent else 9.0,  # a busy machine answers late
        )  # fmt: skip

    def answer_to(self, body):
        name = re.findall(r"Criterion \((\w+)\)", body["messages"][0]["content"][0]["text"])[0]
        self.criteria.append(name)
        turns = self._turns.get(name, ["1"])
        answer = turns.pop(0) if len(turns) > 1 else turns[0]
        if answer in (FAIL, HANG):
            return answer
        choice = answer if isinstance(answer, dict) else {"message": {"content": answer}}
        whole = {"choices": [choice], "usage": {"prompt_tokens": 90, "completion_tokens": 1}}
        return 200, json.dumps(whole).encode()

    def judge(self, answers=None, **settings) -> VlmJudgeReward:
        chosen = VlmJudgeSettings.of({"endpoint": self.endpoint} | settings)
        return VlmJudgeReward(chosen, answers, ChatClient(self.endpoint, sleep=lambda _: None))


@pytest.fixture
def seer():
    with ExitStack() as servers:
        yield lambda **answers: servers.enter_context(closing(Seer(**answers)))


def test_the_score_is_the_mean_over_the_criteria_each_asked_alone(seer):
    server = seer(fox="1", snow="0", coherent="1.")
    score = server.judge().score(PICTURE, PROMPT)
    assert score == (pytest.approx(2 / 3), {"fox": 1.0, "snow": 0.0, "coherent": 1.0}, "")
    assert server.criteria == ["fox", "snow", "coherent"]


def test_the_judge_sees_the_image_the_prompt_and_one_criterion(seer):
    server = seer()
    server.judge().score(PICTURE, PROMPT)
    body = server.asked[1].body
    words, shown = body["messages"][0]["content"]
    assert PROMPT.prompt in words["text"] and "It snows." in words["text"] and "fox." not in words["text"]
    head, data = shown["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), PICTURE)
    assert body["model"] == "seer" and body["temperature"] == 0.0 and "logprobs" not in body


def test_a_large_image_is_shown_smaller(seer):
    server = seer()
    server.judge(side_px=64).score(np.zeros((160, 200, 3), np.uint8), PROMPT)
    data = server.asked[0].body["messages"][0]["content"][1]["image_url"]["url"].split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 51)


@pytest.mark.parametrize("passing", [FAIL, HANG])
def test_a_server_that_fails_and_then_answers_costs_nothing_but_time(seer, passing):
    server = seer(snow=[passing, passing, "0"])
    assert server.judge().score(PICTURE, PROMPT).value == pytest.approx(2 / 3)
    assert server.criteria.count("snow") == 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (FAIL, "snow: .* answers 500. Gave up after 3 attempts"),
        (HANG, "snow: .* did not answer in 0.3 s"),
        ("It does look like snow.", "snow: the judge answered 'It does look like snow.'"),
        ("10", "neither 1 nor 0"),
        ("", "neither 1 nor 0"),
        ({"message": {"content": None, "refusal": "Not this."}}, "snow: the judge declined: 'Not this.'"),
        ({"message": {"content": "1"}, "finish_reason": "content_filter"}, "declined"),
    ],
)
def test_a_criterion_without_an_answer_is_a_failure_and_what_was_had_stays_visible(seer, answer, says):
    score = seer(snow=answer).judge().score(PICTURE, PROMPT)
    assert score.value is None and score.parts == {"fox": 1.0}
    assert re.search(says, score.failure)


def log_probs_of(*places: dict[str, float]) -> dict:
    content = [
        {
            "token": next(iter(place)),
            "logprob": math.log(next(iter(place.values()))),
            "top_logprobs": [{"token": token, "logprob": math.log(p)} for token, p in place.items()],
        }
        for place in places
    ]
    return {"content": content}


def test_probabilities_are_of_one_against_zero_where_the_endpoint_tells_them(seer):
    sure = {"message": {"content": "1"}, "logprobs": log_probs_of({"1": 0.6, "0": 0.2, "Yes": 0.1})}
    places = log_probs_of({" ": 0.9}, {"0": 0.5, " 0": 0.25, "1": 0.25})
    spaced = {"message": {"content": " 0"}, "logprobs": places}
    server = seer(fox=sure, snow=spaced, coherent="1")
    parts = server.judge(probabilities=True).score(PICTURE, PROMPT).parts
    assert parts == {"fox": pytest.approx(0.7 / 0.9), "snow": pytest.approx(0.25), "coherent": 1.0}
    assert server.asked[0].body["logprobs"] is True and server.asked[0].body["top_logprobs"] == 5


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), (" 0\n", 0), ("1.", 1), ("Yes", 1), ("no.", 0), ("YES", 1)]
)
def test_answers_that_say_it_otherwise_are_understood(text, value):
    assert criterion_score(ChatResponse(text, False, False, 1, 1), ()) == value


@pytest.mark.parametrize("text", ["maybe", "1 or 0", "0.5", "-1", "2", "yes, 0"])
def test_probabilities_do_not_make_an_answer_of_what_is_none(text):
    with pytest.raises(LensError, match="neither"):
        criterion_score(ChatResponse(text, False, False, 1, 1), ({"1": -0.1},))


def test_what_was_answered_is_never_asked_again_and_what_failed_is(seer, tmp_path):
    server = seer(snow=["maybe", "0"])
    first = server.judge(tmp_path / "judge.jsonl")
    assert first.score(PICTURE, PROMPT).value is None
    assert server.criteria == ["fox", "snow"]
    # Killed here: what is in the file is all that is left of it.
    second = server.judge(tmp_path / "judge.jsonl")
    score = second.score(PICTURE, PROMPT)
    assert server.criteria == ["fox", "snow", "snow", "coherent"]
    assert second.score(PICTURE, PROMPT) == score and len(server.asked) == 4
    kept = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert [line["prompt_tokens"] for line in kept] == [90, 90, 90], "what it cost can be counted"
    second.close()


@pytest.mark.parametrize("change", ["picture", "criterion", "prompt", "model", "probabilities"])
def test_another_image_criterion_prompt_or_judge_is_another_question(seer, tmp_path, change):
    server = seer()
    server.judge(tmp_path / "judge.jsonl").score(PICTURE, PROMPT)
    picture, prompt, settings = PICTURE, PROMPT, {}
    if change == "picture":
        picture = PICTURE ^ np.uint8(1)
    elif change == "criterion":
        prompt = PROMPT.model_copy(update={"rubric": RUBRIC | {"fox": "There are two foxes."}})
    elif change == "prompt":
        prompt = PROMPT.model_copy(update={"prompt": "a fox"})
    elif change == "model":
        settings = {"endpoint": server.endpoint.model_copy(update={"model": "oracle"})}
    else:
        settings = {"probabilities": True}
    server.judge(tmp_path / "judge.jsonl", **settings).score(picture, prompt)
    assert len(server.asked) == (4 if change == "criterion" else 6)


def test_the_version_tells_judges_apart(seer):
    server = seer()
    other = server.endpoint.model_copy(update={"model": "oracle"})
    changes = ({}, {"probabilities": True}, {"side_px": 64}, {"endpoint": other})
    judges = [server.judge(**one) for one in changes]
    assert len({judge.version for judge in judges}) == 4
    patient = server.endpoint.model_copy(update={"timeout_s": 7.0})
    assert server.judge(endpoint=patient).version == judges[0].version


def test_a_prompt_without_a_rubric_cannot_be_judged(seer):
    with pytest.raises(LensError, match="has no rubric"):
        seer().judge().score(PICTURE, PROMPT.model_copy(update={"rubric": {}}))


def test_a_pool_of_judges_asks_each_criterion_of_each_image_once(seer, tmp_path):
    server = seer(snow=[FAIL, "0"])
    judge = create_reward(VlmJudgeSettings(endpoint=server.endpoint), tmp_path)
    pictures = [np.full((8, 8, 3), level, np.uint8) for level in range(6)]
    with RewardExecutor(judge, num_workers=4) as pool:
        scores = gather_scores(pool.submit(pictures, [PROMPT] * 6))
    assert [score.value for score in scores] == pytest.approx([2 / 3] * 6)
    assert len(server.asked) == 6 * 3 + 1
    assert len((tmp_path / "judge.jsonl").read_text().splitlines()) == 18
