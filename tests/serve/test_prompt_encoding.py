"""Text features in the engine: from disk after a restart, shared with the command, never of another model."""

import pytest
import torch
from tiny_models import CAPTURED_LAYERS, randomise, tiny_pipeline

from lens.models.prompt_template import encode_prompts
from lens.serve.engine.cost_model import CostModel
from lens.serve.engine.model_registry import ModelRegistry
from lens.serve.engine.worker import ModelWorker
from lens.serve.settings.engine import EngineSettings

PROMPT = "two red apples"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One model with two dates of the conversation, and one with another encoder."""
    root, pipeline = tmp_path_factory.mktemp("models"), tiny_pipeline()
    pipeline.save_pretrained(root / "tiny")
    pipeline.register_to_config(prompt_date="2026-05-02")
    pipeline.save_pretrained(root / "dated")
    pipeline.register_to_config(prompt_date="2026-05-01")
    randomise(pipeline.text_encoder, seed=5)
    pipeline.save_pretrained(root / "other")
    return root


@pytest.fixture
def started(folders, tmp_path, monkeypatch):
    """Start a worker with one model, whose cache is empty at the first start."""
    monkeypatch.setenv("LENS_CACHE", str(tmp_path))

    def start(name="tiny", **settings):
        registry = ModelRegistry.from_names([str(folders / name)])
        worker = ModelWorker(registry, EngineSettings(**({"text_cache_disk": "on"} | settings)), CostModel())
        return worker, worker.load(name)

    return start


def assert_same(one, other):
    assert len(one) == len(other) == len(CAPTURED_LAYERS)
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_a_restarted_server_reads_text_features_to_the_bit_and_does_not_encode(started):
    worker, model = started()
    features = worker._encode_text(model, PROMPT)
    again, restarted = started()
    randomise(restarted.pipeline.text_encoder, seed=77)  # whatever it would encode now
    assert_same(again._encode_text(restarted, PROMPT), features)
    assert (worker.num_disk_hits, again.num_disk_hits) == (
        0,
        2,
    )  # the prompt that speed is measured with, too
    assert again.prompt_cache.misses == 2


def test_with_the_disk_cache_features_are_those_of_the_command(started):
    worker, model = started()
    parts = model.pipeline
    (expected, _) = encode_prompts(parts.text_encoder, parts.tokenizer, [PROMPT, "a fox"], CAPTURED_LAYERS)
    features = worker._encode_text(model, PROMPT)
    assert_same(features, [layer[0, : len(features[0])] for layer in expected])


@pytest.mark.parametrize(
    ("name", "dtype"), [("dated", "float32"), ("other", "float32"), ("tiny", "bfloat16")]
)
def test_models_dates_and_dtypes_do_not_share_features(started, name, dtype):
    worker, model = started()
    features = worker._encode_text(model, PROMPT)
    changed, other = started(name, dtype=dtype)
    other_features = changed._encode_text(other, PROMPT)
    assert changed.num_disk_hits == 0
    assert not torch.equal(other_features[0].float(), features[0])


def test_a_small_encoder_is_not_cached_on_disk_unless_told(started, tmp_path):
    for mode in ("auto", "off"):
        worker, model = started(text_cache_disk=mode)
        worker._encode_text(model, PROMPT)
        assert worker.num_disk_hits == 0 and not (tmp_path / "text_features").exists()
