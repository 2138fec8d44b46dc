"""A sample is dropped for the first threshold that it fails, in the order of the stages of the paper."""

import numpy as np
import pytest

from lens.data.build.filters import KEPT, RULES, FilterSettings, drop_reasons
from lens.errors import SettingError

GOOD = {
    "area_px": 1e6, "nsfw": 0.0, "aesthetics": 5.0, "watermark": 0.0, "clarity": 100.0, "entropy": 6.0,
    "luminance": 0.5,
}  # fmt: skip
ALL = FilterSettings(min_clarity=10, min_entropy=2, min_luminance=0.05, max_luminance=0.95)


def table(*changes: dict[str, float]) -> dict[str, np.ndarray]:
    rows = [GOOD | change for change in changes]
    return {name: np.array([row[name] for row in rows]) for name in GOOD}


def test_each_threshold_has_its_reason():
    bad = table(
        {}, {"area_px": 384 * 384 - 1}, {"nsfw": 0.51}, {"aesthetics": 2.9}, {"watermark": 0.9},
        {"clarity": 9}, {"entropy": 1.9}, {"luminance": 0.01}, {"luminance": 0.99},
    )  # fmt: skip
    assert drop_reasons(bad, ALL).tolist() == [KEPT, *(rule.reason for rule in RULES)]


def test_the_first_of_several_reasons_counts():
    assert drop_reasons(table({"area_px": 1, "nsfw": 1}, {"nsfw": 1, "entropy": 0}), ALL).tolist() == [
        "too_small",
        "nsfw",
    ]


def test_a_score_on_the_bound_is_kept():
    edge = {"area_px": 384 * 384, "aesthetics": 3.0, "nsfw": 0.5, "luminance": 0.95}
    assert drop_reasons(table(edge), ALL).tolist() == [KEPT]


def test_a_sample_without_a_required_score_is_dropped():
    assert drop_reasons(table({"aesthetics": np.nan}), ALL).tolist() == ["unscored"]
    assert drop_reasons(table({"aesthetics": np.nan}), FilterSettings(min_aesthetics=None)).tolist() == [KEPT]


def test_a_threshold_on_a_score_that_nothing_computes_is_an_error():
    scores = {name: values for name, values in table({}).items() if name != "aesthetics"}
    with pytest.raises(SettingError, match=r"filters\.min_aesthetics is 3\.0.*set the threshold to null"):
        drop_reasons(scores, ALL)


def test_thresholds_say_which_scores_they_read():
    assert FilterSettings().scores == {"area_px", "nsfw", "aesthetics", "watermark"}
    assert ALL.scores == set(GOOD)


def test_an_empty_range_of_luminance_is_refused():
    with pytest.raises(SettingError, match=r"min_luminance is 0\.9, but it needs at most max_luminance"):
        FilterSettings.of({"min_luminance": 0.9, "max_luminance": 0.1})


def test_raising_a_threshold_never_lets_a_sample_back_in():
    rng = np.random.default_rng(0)
    scores = table(*({"clarity": value} for value in rng.uniform(0, 200, 50)))
    kept = [
        set(np.flatnonzero(drop_reasons(scores, FilterSettings(min_clarity=bound)) == KEPT))
        for bound in (0, 50, 120)
    ]
    assert kept[0] > kept[1] > kept[2]
