"""The pool judges while others work, keeps the order, and lets no image's failure touch another's."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lens.errors import LensError
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import Score
from lens.rl.rewards.pool import RewardExecutor, gather_scores, score_key


class Brightness:
    """Mean brightness; does by the first pixel what the test wants done."""

    def __init__(self, version: str = "1", **deeds):
        self.version, self.deeds, self.num_calls = version, deeds, 0
        self._lock = threading.Lock()

    def score(self, image, prompt):
        with self._lock:
            self.num_calls += 1
        deed = self.deeds.get(f"at_{image[0, 0, 0]}", lambda: None)
        if (score := deed()) is not None:
            return score
        value = float(image.mean()) / 255
        return Score(value, {"bright": value})


class BrightnessOfWorkers(Brightness):
    """The same by workers of its own: `at_...` says what a worker does, `gate` holds all of them up."""

    def __init__(self, version: str = "1", gate: threading.Event | None = None, **deeds):
        super().__init__(version, **deeds)
        self.gate, self.num_submitted = gate, []
        self._workers = ThreadPoolExecutor(2)

    def submit(self, images, prompts):
        self.num_submitted.append(len(images))
        return [self._workers.submit(self._work, *pair) for pair in zip(images, prompts, strict=True)]

    def _work(self, image, prompt):
        if self.gate is not None:
            self.gate.wait(5)
        return self.score(image, prompt)


def pictures(*levels: int) -> list[np.ndarray]:
    return [np.full((2, 3, 3), level, np.uint8) for level in levels]


def prompts(count: int, **changes) -> list[RLPrompt]:
    facts = {"prompt": "a lamp", "category": "object", "item": "lamp", "rubric": {"lit": "It is lit."}}
    return [RLPrompt.of(facts | changes)] * count


def raising(error: BaseException):
    def deed():
        raise error

    return deed


def scored(reward, shown, timeout_s=5.0, cache=None, **changes) -> tuple[list[Score], dict[str, int]]:
    with RewardExecutor(reward, 3, timeout_s, cache) as pool:
        scores = gather_scores(pool.submit(shown, prompts(len(shown), **changes)))
        return scores, pool.counts


def test_scores_come_in_the_order_of_the_images_whoever_is_done_first():
    slow = Brightness(at_0=lambda: time.sleep(0.1), at_51=lambda: time.sleep(0.05))
    scores, counts = scored(slow, pictures(0, 51, 102, 255))
    assert [score.value for score in scores] == pytest.approx([0, 0.2, 0.4, 1])
    assert scores[1].parts == {"bright": pytest.approx(0.2)}
    assert counts == {"calls": 4, "cache_hits": 0, "failures": 0}


@pytest.mark.parametrize("judge", [Brightness, BrightnessOfWorkers])
def test_none_for_an_image_is_a_failure_in_its_place(judge):
    reward = judge()
    first, second = pictures(51, 255)
    scores, counts = scored(reward, [None, first, None, second])
    assert [score.value for score in scores] == [None, pytest.approx(0.2), None, 1]
    assert scores[0].failure == "the image is not finite" and reward.num_calls == 2
    assert counts == {"calls": 2, "cache_hits": 0, "failures": 2}


def test_whoever_hands_images_in_goes_on_while_they_are_scored():
    gate = threading.Event()
    with RewardExecutor(Brightness(at_1=lambda: gate.wait(5) and None), 2) as pool:
        futures = pool.submit(pictures(1, 255), prompts(2))
        assert futures[1].result(5).value == 1.0 and not futures[0].done()
        gate.set()
    assert futures[0].done(), "leaving the pool waits for what was handed in"


def test_a_failure_is_one_image_without_a_value_and_never_a_zero():
    partly = Score(None, {"lit": 1.0}, "refused")
    reward = Brightness(at_1=raising(LensError("no judge today")), at_2=lambda: partly)
    scores, counts = scored(reward, pictures(1, 2, 255))
    assert scores == [Score(None, {}, "no judge today"), partly, Score(1.0, {"bright": 1.0})]
    assert counts == {"calls": 3, "cache_hits": 0, "failures": 2}


def test_a_call_that_takes_too_long_is_left_and_holds_up_no_other():
    gate = threading.Event()
    reward = Brightness(at_1=lambda: gate.wait(5) and None)
    started_at = time.monotonic()
    scores, _ = scored(reward, pictures(1, 1, 1, 255, 51), timeout_s=0.2)
    elapsed_s = time.monotonic() - started_at
    gate.set()
    assert [score.failure for score in scores[:3]] == ["no score within 0.2 s"] * 3
    assert [score.value for score in scores] == [None, None, None, 1.0, pytest.approx(0.2)]
    assert elapsed_s < 2


def test_a_time_out_of_the_reward_itself_is_a_failure_too():
    scores, _ = scored(Brightness(at_1=raising(TimeoutError("socket"))), pictures(1))
    assert scores == [Score(None, {}, "socket")]


def test_a_value_that_is_no_number_is_a_mistake():
    with pytest.raises(AssertionError):
        scored(Brightness(at_1=lambda: Score(float("nan"), {})), pictures(1))


def test_what_was_judged_is_not_judged_again_and_failures_are():
    reward = Brightness(at_1=raising(LensError("down")))
    with RewardExecutor(reward) as pool:
        first = gather_scores(pool.submit(pictures(255, 51, 1), prompts(3)))
        assert gather_scores(pool.submit(pictures(255, 51, 1), prompts(3))) == first
        assert pool.counts == {"calls": 4, "cache_hits": 2, "failures": 2} and reward.num_calls == 4


def test_the_key_holds_the_pixels_their_shape_the_rubric_and_who_judges():
    (one,), (prompt,) = pictures(51), prompts(1)
    (reworded,), (elsewhere,) = prompts(1, rubric={"lit": "It shines."}), prompts(1, item="torch")
    keys = [
        score_key(one, prompt, "1"), score_key(one.reshape(3, 2, 3), prompt, "1"),
        score_key(one + np.uint8(1), prompt, "1"), score_key(one, reworded, "1"), score_key(one, prompt, "2"),
    ]  # fmt: skip
    assert len(set(keys)) == 5
    assert score_key(one.copy(), elsewhere, "1") == keys[0], "where a prompt comes from is not judged"


def test_a_run_that_goes_on_finds_its_scores_in_the_file(tmp_path):
    cache = tmp_path / "scores.jsonl"
    before, _ = scored(Brightness(at_1=raising(LensError("down"))), pictures(255, 51, 1), cache=cache)
    with cache.open("ab") as file:
        file.write(b'{"key": "cut of')
    reward = Brightness()
    after, counts = scored(reward, pictures(255, 51, 1), cache=cache)
    assert after[:2] == before[:2] and after[2].value is not None
    assert counts == {"calls": 1, "cache_hits": 2, "failures": 0} and reward.num_calls == 1
    kept = [json.loads(line)["value"] for line in cache.read_text().splitlines() if line.endswith("}")]
    assert sorted(kept) == sorted(score.value for score in after)
    assert scored(Brightness(version="2"), pictures(255), cache=cache)[1]["calls"] == 1


def test_an_error_outside_lets_go_of_calls_at_once():
    gate = threading.Event()
    started_at = time.monotonic()
    with (
        pytest.raises(RuntimeError),
        RewardExecutor(Brightness(at_1=lambda: gate.wait(9) and None), 2) as pool,
    ):
        futures = pool.submit(pictures(1, 1, 1, 1), prompts(4))
        time.sleep(0.05)
        raise RuntimeError("stop")
    gate.set()
    assert time.monotonic() - started_at < 2
    assert sum(future.cancelled() for future in futures) == 2
    assert {future.result().failure for future in futures[:2]} == {"the run stopped before there was a score"}


def test_images_and_prompts_have_to_be_as_many():
    with RewardExecutor(Brightness()) as pool, pytest.raises(ValueError, match="shorter"):
        pool.submit(pictures(1, 2), prompts(1))


def test_a_reward_with_workers_of_its_own_is_asked_once_an_image_and_failures_are_counted(tmp_path):
    cache = tmp_path / "scores.jsonl"
    reward = BrightnessOfWorkers(at_1=raising(LensError("down")))
    with RewardExecutor(reward, 2, 5.0, cache) as pool:
        first = gather_scores(pool.submit(pictures(255, 1, 51), prompts(3)))
        assert [score.value for score in first] == [1.0, None, pytest.approx(0.2)]
        assert first[1].failure == "down"
        again = gather_scores(pool.submit(pictures(51, 255, 1), prompts(3)))
        assert again == [first[2], first[0], first[1]]
        assert pool.counts == {"calls": 4, "cache_hits": 2, "failures": 2}
    assert reward.num_submitted == [3, 1] and reward.num_calls == 4
    later = BrightnessOfWorkers()
    assert scored(later, pictures(255, 51), cache=cache) == (
        [first[0], first[2]], {"calls": 0, "cache_hits": 2, "failures": 0},
    )  # fmt: skip
    assert later.num_submitted == []


def test_a_worker_that_takes_too_long_is_left_and_its_late_score_is_kept():
    gate = threading.Event()
    with RewardExecutor(BrightnessOfWorkers(gate=gate), 3, 0.2) as pool:
        started_at = time.monotonic()
        scores = gather_scores(pool.submit(pictures(1, 255), prompts(2)))
        assert time.monotonic() - started_at < 2
        assert [score.failure for score in scores] == ["no score within 0.2 s"] * 2
        gate.set()
        while pool.counts["cache_hits"] < 2 and time.monotonic() - started_at < 5:
            scores = gather_scores(pool.submit(pictures(1, 255), prompts(2)))
    assert [score.value for score in scores] == [pytest.approx(1 / 255), 1.0]


@pytest.mark.parametrize("reward", [Brightness, BrightnessOfWorkers])
@pytest.mark.parametrize("mistake", [KeyError("typo"), AssertionError("wrong")])
def test_a_mistake_of_ours_is_raised_and_not_taken_for_a_failure(mistake, reward):
    with RewardExecutor(reward(at_1=raising(mistake))) as pool:
        futures = pool.submit(pictures(1, 255), prompts(2))
        with pytest.raises(type(mistake)):
            gather_scores(futures)
        assert futures[1].result().value == 1.0


def test_counts_hold_when_several_threads_hand_in_to_a_reward_with_workers():
    images, count = pictures(*range(64)), 64
    with RewardExecutor(BrightnessOfWorkers(), 2) as pool, ThreadPoolExecutor(8) as threads:
        handed_in = list(threads.map(lambda image: pool.submit([image], prompts(1)), images))
        gather_scores(future for futures in handed_in for future in futures)
        assert pool.counts == {"calls": count, "cache_hits": 0, "failures": 0}


def test_an_error_outside_lets_go_of_workers_at_once():
    gate, started_at = threading.Event(), time.monotonic()
    with pytest.raises(RuntimeError), RewardExecutor(BrightnessOfWorkers(gate=gate), 2) as pool:
        futures = pool.submit(pictures(1, 1, 1, 1), prompts(4))
        time.sleep(0.05)
        raise RuntimeError("stop")
    assert time.monotonic() - started_at < 2
    gate.set()
    assert sum(future.cancelled() for future in futures) == 2
    assert {future.result().failure for future in futures[:2]} == {"the run stopped before there was a score"}
