"""Writing is read off images and compared letter by letter with what was asked for."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import NotApplicable
from lens.rl.rewards.ocr import OcrReward, text_similarity
from lens.rl.rewards.pool import RewardExecutor, gather_scores
from lens.rl.rewards.settings import OcrRewardSettings


@pytest.fixture(scope="module")
def reward() -> OcrReward:
    """One for all tests: loading takes a second."""
    return OcrReward(OcrRewardSettings(max_side_px=320, num_readers=1))


def written(*lines: str) -> np.ndarray:
    image = Image.new("RGB", (320, 60 * len(lines) + 20), (40, 60, 120))
    for row, line in enumerate(lines):
        font = ImageFont.load_default(34)
        ImageDraw.Draw(image).text((160, 40 + 60 * row), line, fill="white", font=font, anchor="mm")
    return np.asarray(image)


def asking_for(text: str | None) -> RLPrompt:
    return RLPrompt(prompt="a sign", category="text", item="sign", text=text)


def test_what_was_asked_for_gets_everything_whatever_its_case_and_lines(reward):
    score = reward.score(written("FRESH", "BREAD"), asking_for("Fresh bread"))
    assert score == (1.0, {"text": 1.0}, "")


def test_a_wrong_letter_costs_its_share_and_no_text_all(reward):
    assert reward.score(written("FRISH BREAD"), asking_for("fresh bread")).value == pytest.approx(0.9)
    assert reward.score(np.full((64, 64, 3), 90, np.uint8), asking_for("fresh bread")).value == 0.0


@pytest.mark.parametrize("text", [None, "", " "])
def test_a_prompt_without_text_is_none_of_its_business_and_alone_a_failure(reward, text):
    with pytest.raises(NotApplicable):
        reward.score(written("BREAD"), asking_for(text))
    with RewardExecutor(reward, 1) as pool:
        (score,) = gather_scores(pool.submit([written("BREAD")], [asking_for(text)]))
    assert score == (None, {}, "the prompt has no text")


@pytest.mark.parametrize(
    ("lines", "wanted", "value"),
    [
        (["open"], "OPEN", 1.0),
        (["24 h", "open", "late", "no dogs"], "open late", 1.0),
        (["OPE N"], "open", 1.0),
        (["\N{FULLWIDTH LATIN CAPITAL LETTER O}pen"], "open", 1.0),
        (["opem"], "open", 0.75),
        (["open open"], "open", 0.5),
        (["op"], "open", 0.5),
        (["xyz"], "open", 0.0),
        ([], "open", 0.0),
        (["", ""], "open", 0.0),
        (["late", "open"], "open late", 0.5),
    ],
)  # fmt: skip
def test_the_nearest_run_of_lines_counts(lines, wanted, value):
    assert text_similarity(lines, wanted) == pytest.approx(value)


def test_the_version_tells_how_is_read(reward):
    assert reward.version.startswith("text 1, ")
    assert reward.version != OcrReward(OcrRewardSettings(min_confidence=0.9, max_side_px=320)).version
