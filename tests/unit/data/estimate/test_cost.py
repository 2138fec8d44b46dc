"""Cost estimates: the arithmetic by hand, the stages of the recipe, and the source of every rate."""

from pathlib import Path

import pytest
import yaml

from lens.cli.main import main
from lens.config import read_recipe
from lens.data.build.dedup import num_comparisons
from lens.data.build.settings import BuildSettings
from lens.data.estimate.cost import (
    BuildEstimate,
    StageCost,
    build_estimate_to_dict,
    estimate_build,
    format_build_estimate,
    parse_count,
)
from lens.data.estimate.throughput import Rate, read_rates
from lens.errors import SettingError

RECIPES = Path(__file__).parents[4] / "recipes" / "data"
NUM_IMAGES, NUM_GPUS, NUM_CORES = 1_000_000, 5, 30


def settings_of(**changes) -> BuildSettings:
    return BuildSettings.of(read_recipe(RECIPES / "lens_800m.yaml") | changes)


def numbers() -> dict[str, float]:
    return {name: rate.value for name, rate in read_rates().items()}


def plan(num_images=NUM_IMAGES, num_gpus=NUM_GPUS, num_cores=NUM_CORES, **changes) -> BuildEstimate:
    return estimate_build(settings_of(**changes), num_images, num_gpus, num_cores)


def by_stage(found: BuildEstimate) -> dict[str, StageCost]:
    return {line.stage: line for line in found.stages}


def test_a_plan_is_what_its_rates_multiply_to():
    rates = {
        "picture_megapixels": 2.0, "picture_bytes": 3e5, "shard_megapixels": 0.5, "shard_bytes": 4e5,
        "kept_share": 0.25, "fetched_share": 0.5, "fetch_pictures_a_s": 250, "fetch_cores": 10,
        "network_bytes_a_s": 1e9, "decode_s": 0.01, "pixel_scores_s": 0.002, "fill_bucket_s": 0.03,
        "encode_s": 0.04, "score_bytes": 100,
        "classify_pictures_a_s": 400, "like_pictures_a_s": 250, "embed_and_like_pictures_a_s": 1000,
        "embed_and_like_gpus": 8, "embedding_bytes": 3072, "search_pictures_a_s": 50, "dense_words": 100,
        "tokens_a_word": 1.5, "prompt_tokens": 1200, "caption_tokens_a_s": 3000,
    }  # fmt: skip
    book = {"unit": "", "kind": "published", "source": "a book"}
    given = {name: Rate.of({"value": value, **book}) for name, value in rates.items()}
    found = estimate_build(settings_of(), 1_000_000, 5, 30, given)
    lines = by_stage(found)
    assert {name: line.cost.core_s for name, line in lines.items() if line.cost.core_s} == pytest.approx({
        "fetch": 20_000, "decode": 20_000, "scores without models": 4_000,
        "near duplicates by embedding": 20_000, "shards": 250_000 * (2 * 0.04 + 0.5 * 0.04),
    })  # fmt: skip
    assert {name: line.cost.gpu_s for name, line in lines.items() if line.cost.gpu_s} == pytest.approx({
        "nsfw scores": 2500, "watermark scores": 2500, "aesthetics scores": 4000, "embedding scores": 8000,
        "captions": 250_000 * 150 / 3000,
    })  # fmt: skip
    cost = found.total.cost
    assert (cost.download_bytes, cost.score_bytes, cost.shard_bytes) == pytest.approx((1.5e11, 3.172e9, 5e10))
    assert (cost.caption_tokens, cost.prompt_tokens) == pytest.approx((37.5e6, 3e8))
    assert found.total.days == pytest.approx({
        "cores": 89_000 / 30 / 86400, "GPUs": 29_500 / 5 / 86400, "network": 150 / 86400,
    })  # fmt: skip
    assert found.total.bottleneck == "GPUs"
    in_turn = 20_000 / 30 + (20_000 + 4_000 + 20_000 + 25_000) / 30 + 29_500 / 5
    assert found.sequential_days == pytest.approx(in_turn / 86400)


def test_an_estimate_is_linear_in_its_images_except_for_comparing_hashes():
    once, thrice = by_stage(plan(duplicates={})), by_stage(plan(3 * NUM_IMAGES, duplicates={}))
    assert "near duplicates by hash" in once
    for stage, line in once.items():
        factor = 3.0
        if stage == "near duplicates by hash":
            factor = num_comparisons(3 * NUM_IMAGES, 4) / num_comparisons(NUM_IMAGES, 4)
        assert thrice[stage].cost == pytest.approx(tuple(factor * value for value in line.cost)), stage


def test_twice_the_gpus_halve_their_days_and_leave_those_of_the_cores():
    one, two = plan(num_gpus=8), plan(num_gpus=16)
    assert two.total.days["GPUs"] == pytest.approx(one.total.days["GPUs"] / 2)
    assert two.total.days["cores"] == one.total.days["cores"]
    assert plan(num_gpus=16, num_cores=None).num_cores == 16 * numbers()["cores_a_gpu"]


def test_the_papers_recipe_has_its_stages_and_captions_of_109_words():
    found = by_stage(plan(800_000_000, 64))
    assert list(found) == [
        "fetch", "decode", "scores without models", "nsfw scores", "aesthetics scores", "watermark scores",
        "embedding scores", "near duplicates by embedding", "captions", "shards",
    ]  # fmt: skip
    words = found["captions"].cost.caption_tokens / numbers()["tokens_a_word"]
    assert words == pytest.approx(800e6 * 109 * numbers()["kept_share"])


def test_a_recipe_without_models_or_lists_needs_neither_gpus_nor_a_network():
    settings = BuildSettings.of(read_recipe(RECIPES / "folder.yaml"))
    found = estimate_build(settings, 10_000, num_cores=2)
    assert list(by_stage(found)) == ["decode", "scores without models", "near duplicates by hash", "shards"]
    assert found.total.cost.gpu_s == found.total.cost.download_bytes == 0
    assert found.total.bottleneck == "cores"


def test_unknown_settings_are_refused_as_in_a_build():
    with pytest.raises(SettingError, match="colour"):
        settings_of(colour="red")


@pytest.mark.parametrize(
    ("text", "number"),
    [("800M", 800e6), ("10k", 10e3), ("1.5B", 1.5e9), ("12345", 12345), ("0.07k", 70), (" 1 ", 1)],
)
def test_counts_are_read(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "0", "-5", "many", "1.5", "10K", "1e6", "800 M", "1,000", "nan", "2M5"])
def test_bad_counts_name_the_option_the_value_and_what_it_needs(text):
    with pytest.raises(SettingError) as caught:
        parse_count(text)
    assert str(caught.value).startswith(f"--images is {text!r}, but it needs a whole number above 0, such as")


def test_a_cluster_that_cannot_be_is_refused_with_what_to_say():
    with pytest.raises(SettingError, match="--gpus is 0, but it needs at least 1 for the stage nsfw scores"):
        plan(num_gpus=0)
    with pytest.raises(SettingError, match="--gpus is -1"):
        plan(num_gpus=-1)
    with pytest.raises(SettingError, match="--cores is 0"):
        plan(num_cores=0)


def test_every_rate_of_a_stage_is_printed_below_it_with_its_source():
    found = plan()
    text = list(format_build_estimate(found))
    for line in found.stages:
        assert line.rates
        start = next(index for index, printed in enumerate(text) if printed.startswith(line.stage + " "))
        below = text[start + 1 : start + 1 + len(line.rates)]
        for name, printed in zip(line.rates, below, strict=True):
            assert printed.strip().startswith(f"{name} ") and found.rates[name].origin in printed
    assert any("published: README of img2dataset" in line for line in text)
    assert any("measured: python benchmarks/data_rates.py, 2026-11-24" in line for line in text)
    assert any("assumed; to measure it:" in line for line in text)
    assert any(line.startswith("bottleneck: ") for line in text)


@pytest.mark.parametrize("kind", ["measured", "published", "assumed"])
def test_a_rate_without_its_source_is_an_error(kind, tmp_path):
    path = tmp_path / "rates.yaml"
    path.write_text(yaml.safe_dump({"speed": {"value": 3.0, "unit": "m/s", "kind": kind}}))
    with pytest.raises(SettingError, match=f"kind is '{kind}', but it needs"):
        read_rates(path)


def test_every_rate_of_the_file_is_used_by_some_plan():
    captions = {"kind": "transformers", "model": "seer", "kinds": ["dense", "brief"]}
    own = ({"kind": "nudenet"}, {"kind": "ocr"}, {"kind": "embedding", "model": "clip"})
    recipe = read_recipe(RECIPES / "lens_800m.yaml")
    found = plan(num_cores=None, captions=captions, duplicates={"min_cosine": 0.985})
    offline = plan(scorers=own, filters=recipe["filters"] | {"min_aesthetics": None}, duplicates={})
    assert set(found.rates) | set(offline.rates) == set(read_rates())


def test_the_command_prints_a_table_or_one_object(capsys):
    recipe = str(RECIPES / "lens_800m.yaml")
    assert main(["data", "plan", recipe, "--images", "800M", "--gpus", "64"]) == 0
    assert capsys.readouterr().out.startswith("800,000,000 images, 64 GPUs, 1,024 cores\n")
    assert main(["data", "plan", recipe, "--images", "10k", "--gpus", "1", "--cores", "7", "--json"]) == 0
    expected = build_estimate_to_dict(estimate_build(settings_of(), 10_000, 1, 7))
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(yaml.safe_dump(expected))
    assert main(["data", "plan", recipe, "--images", "lots", "--gpus", "64"]) == 2
    assert "--images is 'lots', but it needs a whole number" in capsys.readouterr().err
