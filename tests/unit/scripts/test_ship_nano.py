"""Shipping weights: into a folder that shares the rest, within limits, with a card of measured scores."""

import importlib.util
from pathlib import Path

import pytest
from tiny_models import tiny_denoiser, tiny_pipeline

from lens import LensPipeline
from lens.errors import CheckpointError
from lens.models.checkpoints.hashing import content_hash
from lens.nano.tasks import TASKS

SCRIPT = Path(__file__).parents[3] / "scripts" / "ship_nano.py"
spec = importlib.util.spec_from_file_location("ship_nano", SCRIPT)
assert spec is not None and spec.loader is not None
ship_nano = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ship_nano)


@pytest.fixture
def root(tmp_path):
    """Folders of models as they ship: the one that holds what all share, and one of the same weights."""
    tiny_pipeline(lens_variant="nano").save_pretrained(tmp_path / "root/lens-nano")
    ship_nano.ship("lens-nano-base", tmp_path / "root/lens-nano", tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def trained(tmp_path):
    """What a run exports, with the place where it was made in its configuration."""
    denoiser = tiny_denoiser(seed=9)
    denoiser.register_to_config(_name_or_path=str(tmp_path))
    denoiser.save_pretrained(tmp_path / "export/transformer")
    return tmp_path / "export"


def scores(root: Path, name: str, steps: int, guidance: float, passed: int = 3, seconds: float = 0.4) -> dict:
    counts = {"passed": passed, "total": 4, "fraction": passed / 4, "interval": [0.3, 0.95]}
    table = {task: counts for task in (*TASKS, "mean")}
    return {
        "command": "lens eval nano", "date": "today", "machine": "M", "name": name,
        "hash": content_hash(root / name), "steps": steps, "guidance": guidance, "batch": 10,
        "drawn": f"{steps} steps, guidance {guidance:g}", "seconds_a_picture": 2 * seconds,
        "denoiser_seconds_a_picture": seconds, "tables": {"model": table, "truth": table},
    }  # fmt: skip


def test_a_shipped_model_has_its_own_denoiser_alone_and_draws(root, trained):
    before = content_hash(root / "lens-nano")
    ship_nano.ship("lens-nano-turbo", trained, root)
    folder = root / "lens-nano-turbo"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model_index.json", "transformer"]
    assert "_name_or_path" not in (folder / "transformer" / "config.json").read_text()
    pipeline = LensPipeline.from_pretrained(folder)
    assert pipeline.config["lens_variant"] == "nano-turbo"
    assert pipeline.defaults == (4, 1.0, 64)
    assert content_hash(root / "lens-nano") == before
    ship_nano.ship("lens-nano", trained, root)
    assert content_hash(root / "lens-nano") != before
    assert LensPipeline.from_pretrained(root / "lens-nano").defaults == (20, 2.0, 64)


def test_a_denoiser_is_shared_until_it_differs(root, trained):
    base, denoiser_hash = root / "lens-nano-base", ship_nano.denoiser_hash
    before = denoiser_hash(base)
    assert not (base / "transformer").exists() and before == denoiser_hash(root / "lens-nano")
    assert LensPipeline.from_pretrained(base).config["lens_variant"] == "nano-base"
    ship_nano.ship("lens-nano", trained, root)
    assert denoiser_hash(base) == before != denoiser_hash(root / "lens-nano")
    ship_nano.ship("lens-nano-base", trained, root)
    assert not (base / "transformer").exists() and denoiser_hash(base) == denoiser_hash(root / "lens-nano")


def test_weights_that_do_not_fit_change_nothing(root, trained, monkeypatch):
    before = content_hash(root / "lens-nano")
    for limit in ("LIMIT_BYTES", "TOTAL_LIMIT_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(ship_nano, limit, 1000)
            with pytest.raises(AssertionError, match=r"would take .* of 1000"):
                ship_nano.ship("lens-nano", trained, root)
    (trained / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError):
        ship_nano.ship("lens-nano", trained, root)
    assert content_hash(root / "lens-nano") == before


def test_a_card_says_where_it_was_not_measured_and_how_it_was_made(root, trained):
    card = (root / "lens-nano-base" / "README.md").read_text()
    assert "Not measured yet: `lens eval nano --models lens-nano-base`" in card
    assert card.count("shared with lens-nano") == 3 and "pretrain.yaml" in card
    assert "rl.yaml" not in ship_nano.card("lens-nano", [], root), "its weights are still those of the base"
    ship_nano.ship("lens-nano", trained, root)
    ship_nano.ship("lens-nano-turbo", trained, root)
    assert "recipes/nano/rl.yaml" in ship_nano.card("lens-nano", [], root)
    turbo = ship_nano.card("lens-nano-turbo", [], root)
    assert "recipes/nano/turbo_trajectory.yaml" in turbo and "goals" not in turbo


def test_cards_hold_their_own_numbers_first_and_the_run_side_by_side(root, trained):
    ship_nano.ship("lens-nano-turbo", trained, root)
    run = [
        scores(root, "lens-nano-base", 4, 1.0, passed=1, seconds=0.05),
        scores(root, "lens-nano-base", 20, 2.0),
        scores(root, "lens-nano", 20, 2.0),
        scores(root, "lens-nano-turbo", 4, 1.0, passed=2, seconds=0.04),
    ]
    later = scores(root, "lens-nano", 20, 5.0) | {"date": "tomorrow"}
    ship_nano.write_cards([later, *run], root)
    nano, base, turbo = (
        (root / name / "README.md").read_text() for name in ("lens-nano", "lens-nano-base", "lens-nano-turbo")
    )
    for card in (nano, base, turbo):
        assert "| lens-nano-turbo | 4 | 1 | 0.500 | 0.300 to 0.950 | 0.080 | 0.040 | 10.0x |" in card
        assert "| lens-nano-base | 4 | 1 | 0.250 | 0.300 to 0.950 | 0.100 | 0.050 | 8.0x |" in card
    assert nano.index("Sampling: 20 steps, guidance 2.") < nano.index("Sampling: 20 steps, guidance 5.")
    assert base.index("Sampling: 20 steps, guidance 2.") < base.index("Sampling: 4 steps, guidance 1.")
    assert "| single | 3 | 4 | 0.750 | 0.300 to 0.950 | 0.750 | 0.90 |" in nano
    assert "| mean | 3 | 4 | 0.750 | 0.300 to 0.950 | 0.750 |  |" in base
    assert "| single | 2 | 4 | 0.500 | 0.300 to 0.950 | 0.500 |\n" in turbo
    assert f"hash {content_hash(root / 'lens-nano-turbo')[:10]}" in turbo


def test_scores_of_other_weights_or_of_another_way_alone_are_refused(root, trained):
    old = scores(root, "lens-nano", 20, 2.0)
    with pytest.raises(AssertionError, match="no scores of lens-nano-base are with 20 steps, 2"):
        ship_nano.write_cards([scores(root, "lens-nano-base", 4, 1.0)], root)
    ship_nano.ship("lens-nano", trained, root)
    with pytest.raises(AssertionError, match="scores of lens-nano are of"):
        ship_nano.write_cards([old], root)


def test_a_card_holds_what_people_s_prompts_gave_with_their_goals(root):
    name, tally = "lens-nano", {"share": 0.75, "interval": [0.6, 0.86], "passed": 30, "of": 40}
    people = tally | {
        "model": name, "hash": content_hash(root / name), "command": "lens eval nano --prompts",
        "date": "today", "machine": "M", "steps": 20, "guidance": 2.0, "solver": "euler", "seed": 0,
        "seeds": 1,
        "groups": {"file": {"words.jsonl": tally, "mine.jsonl": tally}, "language": {"de": tally}},
    }  # fmt: skip
    card = ship_nano.card(name, [scores(root, name, 20, 2.0), people], root)
    assert "| a person's own words | 30 | 40 | 0.750 | 0.600 to 0.860 | 0.80 |" in card
    assert "| mine.jsonl | 30 | 40 |" in card and "| language de | 30 | 40 |" in card
    with pytest.raises(AssertionError, match="scores of lens-nano are of 0000"):
        ship_nano.card(name, [scores(root, name, 20, 2.0), people | {"hash": "0000"}], root)
