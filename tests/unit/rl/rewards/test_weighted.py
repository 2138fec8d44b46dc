"""Rewards together: their weighted mean, every component in sight, and settings that name them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from lens.errors import LensError, SettingError
from lens.llm.client import Endpoint
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import NotApplicable, Score
from lens.rl.rewards.factory import create_reward
from lens.rl.rewards.nano import NanoReward
from lens.rl.rewards.ocr import OcrReward
from lens.rl.rewards.settings import (
    AnyRewardSettings,
    NanoRewardSettings,
    OcrRewardSettings,
    VlmJudgeSettings,
    WeightedRewardSettings,
)
from lens.rl.rewards.vlm_judge import VlmJudgeReward
from lens.rl.rewards.weighted import WeightedReward

PICTURE = np.zeros((2, 3, 3), np.uint8)
PROMPT = RLPrompt(prompt="a lamp", category="object", item="lamp")


class Fixed:
    """Always the same score, or the same error."""

    def __init__(self, result: Score | Exception, version: str = "fixed"):
        self.result, self.version = result, version

    def score(self, image, prompt):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


GOOD = Fixed(Score(0.9, {"lit": 1.0, "whole": 0.8}))
POOR = Fixed(Score(0.1, {"text": 0.1}))


def test_the_value_is_the_mean_by_weight_and_all_components_are_told():
    score = WeightedReward({"judge": (3.0, GOOD), "ocr": (1.0, POOR)}).score(PICTURE, PROMPT)
    parts = {"judge": 0.9, "judge/lit": 1.0, "judge/whole": 0.8, "ocr": 0.1, "ocr/text": 0.1}
    assert score == (pytest.approx(0.7), parts, "")


@pytest.mark.parametrize(
    "broken", [Fixed(LensError("no answer")), Fixed(Score(None, {"lit": 1.0}, "no answer"))]
)
def test_one_failing_fails_the_sample_and_the_others_stay_visible(broken):
    score = WeightedReward({"judge": (3.0, broken), "ocr": (1.0, POOR)}).score(PICTURE, PROMPT)
    assert score.value is None and score.failure == "judge: no answer"
    known = {f"judge/{name}": part for name, part in getattr(broken.result, "parts", {}).items()}
    assert score.parts == {"ocr": 0.1, "ocr/text": 0.1} | known


def test_what_does_not_apply_is_left_out_of_the_mean():
    aside = Fixed(NotApplicable("the prompt asks for no text"))
    score = WeightedReward({"judge": (1.0, GOOD), "ocr": (9.0, aside)}).score(PICTURE, PROMPT)
    assert score == (pytest.approx(0.9), {"judge": 0.9, "judge/lit": 1.0, "judge/whole": 0.8}, "")
    with pytest.raises(NotApplicable, match="ocr: the prompt asks for no text"):
        WeightedReward({"ocr": (9.0, aside)}).score(PICTURE, PROMPT)


def test_a_mistake_of_ours_is_no_failure():
    with pytest.raises(KeyError):
        WeightedReward({"judge": (1.0, Fixed(KeyError("typo")))}).score(PICTURE, PROMPT)


def test_the_version_tells_weights_names_and_components_apart():
    versions = {
        WeightedReward(parts).version
        for parts in (
            {"a": (1.0, GOOD)}, {"a": (2.0, GOOD)}, {"b": (1.0, GOOD)}, {"a": (1.0, GOOD), "b": (1.0, GOOD)},
            {"a": (1.0, Fixed(GOOD.result, "other"))},
        )
    }  # fmt: skip
    assert len(versions) == 5


ENDPOINT = {"url": "http://127.0.0.1:9/v1", "model": "seer"}
COMBINED = {
    "kind": "combined",
    "parts": {
        "seen": {"weight": 2.0, "reward": {"kind": "judge", "endpoint": ENDPOINT}},
        "read": {"reward": {"kind": "text"}},
        "counted": {"weight": 0.5, "reward": {"kind": "nano", "exact_weight": 0.25}},
    },
}


def test_settings_name_each_reward_by_its_kind(tmp_path):
    settings = TypeAdapter(AnyRewardSettings).validate_python(COMBINED)
    reward = create_reward(settings, tmp_path)
    assert isinstance(reward, WeightedReward)
    assert [(name, weight, type(one)) for name, (weight, one) in reward.parts.items()] == [
        ("seen", 2.0, VlmJudgeReward), ("read", 1.0, OcrReward), ("counted", 0.5, NanoReward)
    ]  # fmt: skip
    assert not any(tmp_path.iterdir()), "nothing is written before the first answer"
    single = (NanoRewardSettings(), VlmJudgeSettings(endpoint=Endpoint.of(ENDPOINT)), OcrRewardSettings())
    assert [type(create_reward(one)) for one in single] == [NanoReward, VlmJudgeReward, OcrReward]


def test_the_rewards_of_the_how_to_are_settings():
    text = (Path(__file__).parents[4] / "docs" / "how-to" / "rl.md").read_text().split("## Rewards")[1]
    recipes = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    rewards = [TypeAdapter(AnyRewardSettings).validate_python(recipe["reward"]) for recipe in recipes]
    assert [reward.kind for reward in rewards] == ["nano", "judge", "combined"]


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "combined", "parts": {}},
        {"kind": "combined", "parts": {"a": {"weight": 0, "reward": {"kind": "nano"}}}},
        {"kind": "combined", "parts": {"a": {"reward": COMBINED}}},
        {"kind": "combined", "parts": {"a": {"reward": {"kind": "taste"}}}},
    ],
)
def test_what_is_no_combination_is_refused(values):
    with pytest.raises(SettingError):
        WeightedRewardSettings.of(values)


def test_settings_are_read_without_anything_heavy():
    script = (
        "import sys; from lens.rl.rewards.settings import AnyRewardSettings;"
        "print([name for name in ('torch', 'PIL', 'cv2', 'rapidocr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
