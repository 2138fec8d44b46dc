"""Every scorer agrees with the official code on cases whose scores that code gave.

The cases lie outside the repository; `LENS_EVALDATA` names their folder, the default is beside the clone.
"""

import json
import os
from pathlib import Path

import pytest

from lens.evals.scores.registry import SCORERS, score_file

FOLDER = Path(os.environ.get("LENS_EVALDATA", Path(__file__).parents[5] / "shared/evaldata")) / "cases"
EXPECTED = sorted(FOLDER.glob("expected_*.json"))
needs_cases = pytest.mark.skipif(
    not EXPECTED, reason=f"NOT RUN: the official cases are not in {FOLDER}; set LENS_EVALDATA"
)
SINGLE_PRECISION = ("clipscore", "oneig_reasoning", "oneig_style", "oneig_diversity")


def differences(found, expected, place, tolerance):
    """Yield the places in which two JSON values differ; numbers may differ by a share of their size."""
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            yield f"{place}: other keys, {sorted(found.keys() ^ expected.keys())}"
        for key in expected.keys() & found.keys():
            loose = 1e-6 if "clipscore" in key else tolerance
            yield from differences(found[key], expected[key], f"{place}/{key}", loose)
    elif isinstance(expected, list):
        if len(found) != len(expected):
            yield f"{place}: {len(found)} entries instead of {len(expected)}"
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            yield from differences(one, other, f"{place}[{index}]", tolerance)
    elif isinstance(expected, float) and isinstance(found, float):
        if found != pytest.approx(expected, rel=tolerance, abs=1e-15):
            yield f"{place}: {found} instead of {expected}"
    elif found != expected or type(found) is not type(expected):
        yield f"{place}: {found} instead of {expected}"


@needs_cases
@pytest.mark.parametrize("name", [path.stem.removeprefix("expected_") for path in EXPECTED] or ["none"])
def test_the_score_of_a_case_is_that_of_the_official_code(name):
    benchmark = name.partition(".")[0]
    expected = json.loads((FOLDER / f"expected_{name}.json").read_text())
    found = json.loads(json.dumps(score_file(benchmark, FOLDER / f"{name}.jsonl").to_json(benchmark)))
    tolerance = 1e-6 if benchmark in SINGLE_PRECISION else 1e-9
    assert list(differences(found, expected, name, tolerance)) == []


@needs_cases
def test_every_benchmark_has_a_case():
    assert {path.stem.removeprefix("expected_").partition(".")[0] for path in EXPECTED} == set(SCORERS)
