"""The language stage reads its captions, in batches of one length; the encoder alone is exported."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from lens.nano.evaluation_prompts import EvalPrompt
from lens.nano.reading import LABELS, reading_of
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

SPEC = SceneSpec((ObjectGroup("fox", 2), ObjectGroup("key")), "blue", ((0, "above", 1),))


@pytest.fixture
def stage(settings_and_stage, tmp_path):
    """A new stage that evaluates one file of two prompts."""
    lines = [
        {"prompt": "2 foxes", "objects": [{"name": "fox", "count": 2}, {"name": "key"}]},
        {"prompt": "3 foxes", "objects": [{"name": "fox", "count": 3}, {"name": "key"}]},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    changes = {"probe_prompt_files": [str(tmp_path / "own.jsonl")], "captions": {"others": 0.3}}
    return settings_and_stage("language", tmp_path / "run", **changes)[1]


def always_read(stage, spec: SceneSpec) -> None:
    """Make the head tell one spec, whatever the text."""
    with torch.no_grad():
        for classifier, label in zip(stage.model["head"].classifiers, reading_of(spec), strict=True):
            classifier.weight.zero_()
            classifier.bias.zero_()
            classifier.bias[label] = 1


def test_batches_of_a_pool_have_captions_of_one_length_and_each_caption_once(stage):
    from lens.train.stages.language import POOL_BATCHES

    pool = stage._make_pool(1, 3)
    assert [len(batch) for batch in pool] == [3] * POOL_BATCHES
    lengths = sorted(tuple(sorted(len(caption.text.encode()) for caption in batch)) for batch in pool)
    assert all(one[-1] <= other[0] for one, other in pairwise(lengths))
    expected = sorted(stage._caption(3 * POOL_BATCHES + item).text for item in range(3 * POOL_BATCHES))
    assert sorted(caption.text for batch in pool for caption in batch) == expected
    assert stage._make_pool(1, 3) == pool
    order = [len(batch[0].text.encode()) for batch in pool]
    assert order != sorted(order), "short captions do not all come first"


def test_every_micro_batch_has_captions_of_its_own(settings_and_stage, tmp_path, monkeypatch):
    _, stage = settings_and_stage("language", tmp_path / "run", batch_size=4, micro_batches=2)
    seen, loss = [], stage._loss
    monkeypatch.setattr(stage, "_loss", lambda captions: seen.append(captions) or loss(captions))
    outputs = [stage.objective(step, index) for step in (0, 1) for index in (0, 1)]
    assert [output.stats.num_samples for output in outputs] == [2] * 4
    assert len({caption.text for captions in seen for caption in captions}) == 8
    assert set(outputs[0].terms) == {"text", "reading", "mentions", "facts"}


def test_the_terms_sum_to_the_loss_and_the_weight_is_that_of_reading(settings_and_stage, tmp_path):
    _, stage = settings_and_stage("language", tmp_path / "run", reading_weight=0.5)
    output = stage.objective(0, 0)
    text = output.terms.pop("text")
    torch.testing.assert_close(output.loss.detach(), text + 0.5 * sum(output.terms.values()))


def test_a_text_is_read_alike_alone_and_beside_a_longer_one(stage):
    texts = ["a fox", "two red keys to the left of a very small fox on a blue background", "Zwei Katzen"]
    together = stage._forward(texts)
    for row, text in enumerate(texts):
        alone, length = stage._forward([text]), int(together.lengths[row])
        assert torch.equal(alone.ids[0, :length], together.ids[row, :length])
        torch.testing.assert_close(
            alone.last[0, : length + 9], together.last[row, : length + 9], atol=1e-4, rtol=1e-3
        )


def test_what_is_read_is_the_likeliest_value_of_each_label(stage):
    always_read(stage, SPEC)
    readings = stage.read(["a fox"] * 70)
    assert len(readings) == 70
    assert all(np.array_equal(reading, reading_of(SPEC)) for reading in readings)
    assert readings[0].shape == (len(LABELS),)


def test_an_evaluation_counts_prompts_that_are_read_right(stage):
    always_read(stage, SPEC)
    with torch.no_grad():
        metrics = stage.evaluate()
    assert set(metrics) == {"loss", "text", "reading", "mentions", "facts", "read/held_out", "read/own"}
    assert metrics["read/own"] == 0.5
    assert metrics["read/held_out"] < 0.1
    other = EvalPrompt("a fox", SceneSpec((ObjectGroup("fox"),)), {})
    assert [is_read for _, is_read in stage.read_prompts([EvalPrompt("", SPEC, {}), other])] == [True, False]


def test_a_stage_learns_to_read_one_batch_and_exports_the_encoder_that_did(settings_and_stage, tmp_path):
    from lens.models.checkpoints.text_encoder import load_text_encoder_folder
    from lens.train.ema import Ema
    from lens.train.optimizer import build_optimizers
    from lens.train.step import TrainState, train_step

    quick = {"lr": 1e-2, "schedule": "cosine", "warmup_steps": 2}
    settings, stage = settings_and_stage("language", tmp_path / "run", steps=50, optimizer=quick)
    captions = stage._pool(0, 3)[0]
    labels = np.stack([reading_of(caption.spec) for caption in captions])
    is_stated = labels > 0
    texts = [caption.text for caption in captions]
    before = (np.stack(stage.read(texts)) == labels)[is_stated].mean()
    optimizer = build_optimizers(stage.model, settings.optimizer)
    run = TrainState(
        settings, stage.model, optimizer, Ema(stage.model, 0.9), lambda *_: stage.objective(0, 0)
    )
    for _ in range(settings.steps):
        train_step(run)
    after = (np.stack(stage.read(texts)) == labels)[is_stated].mean()
    assert (before, after) == (pytest.approx(0, abs=0.2), pytest.approx(1, abs=0.3))
    stage.export(tmp_path / "export", stage.model.state_dict())
    encoder = load_text_encoder_folder(tmp_path / "export" / "text_encoder")
    for name, value in stage.model["encoder"].state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"text_encoder", "tokenizer"}

    _, warm = settings_and_stage("language", tmp_path / "warm", start_from=str(tmp_path / "export"))
    assert warm.tokenizer(texts)["input_ids"] == stage.tokenizer(texts)["input_ids"]
    assert len(warm.tokenizer) == len(stage.tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(warm._forward(texts).last, stage._forward(texts).last)


def test_captions_and_prompt_files_that_cannot_be_are_refused_before_torch_is_needed(values_of, tmp_path):
    from lens.errors import SettingError
    from lens.train.run import parse_settings

    for changes, says in (
        ({"captions": {"dens": 1}}, "captions is"),
        ({"captions": {"others": 2}}, "captions is"),
        ({"probe_prompt_files": [str(tmp_path / "gone")]}, "probe_prompt_files is"),
    ):
        settings = parse_settings("language", values_of("language", tmp_path / "run", **changes), "the test")
        with pytest.raises(SettingError, match=says):
            settings.check_inputs()
