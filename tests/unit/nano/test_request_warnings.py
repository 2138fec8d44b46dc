"""Warnings of requests: only nano models have them, once for each prompt."""

import logging

import pytest
from tiny_models import tiny_pipeline

from lens.cli.generation.request import GenerateArguments
from lens.cli.generation.run import generate_images
from lens.nano.request_warnings import request_warnings, size_warning
from lens.sampling.resolved_model import ResolvedModel

WORDS = "does not know mermaid"


def lines(caplog):
    found = (one for one in caplog.records if one.name.startswith("lens") and one.levelno == logging.WARNING)
    return [record.getMessage() for record in found]


@pytest.mark.parametrize("size", [(128, 128), (112, 144), (144, 144), (96, 176)])
def test_sizes_near_a_trained_base_are_not_warned_about(size):
    assert size_warning("lens-nano", [128], *size) is None


@pytest.mark.parametrize(("size", "what"), [((256, 256), "repeated things"), ((64, 64), "hard to recognise")])
def test_sizes_far_from_it_are(size, what):
    warning = size_warning("lens-nano", [128], *size)
    assert warning is not None and "about 128 x 128" in warning and what in warning


def test_other_models_are_not_checked():
    assert request_warnings("turbo", [1024], "a mermaid", (64, 64)) == []
    assert len(request_warnings("nano-turbo", [128], "a mermaid", (64, 64))) == 2


def test_the_command_logs_each_warning_once_before_it_loads_a_model(caplog):
    arguments = GenerateArguments(prompts=["a mermaid", "a fox", "a mermaid"], size="256x256")

    def stop(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        next(generate_images(arguments.complete(), stop))
    assert [WORDS in line for line in lines(caplog)] == [True, False]
    assert "256x256 often shows repeated things" in lines(caplog)[1]


def test_the_pipeline_logs_what_it_does_not_know_and_nothing_for_other_models(caplog):
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    tiny_pipeline(lens_variant="nano", trained_base_resolutions=[64])(["a mermaid", "a fox"], **settings)
    assert [WORDS in line for line in lines(caplog)] == [True]
    caplog.clear()
    tiny_pipeline(lens_variant="lens")("a mermaid", **settings)
    assert lines(caplog) == []


def test_the_pipeline_tells_of_syntax_that_it_draws_as_words(caplog):
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    pipeline = tiny_pipeline()
    for prompt in ("a {red|blue} fox", "a (red:1.3) fox", "a fox <lora:ink:1>", "a __colour__ fox"):
        caplog.clear()
        pipeline(prompt, **settings)
        assert len(lines(caplog)) == 1 and "PromptReader" in lines(caplog)[0]
    caplog.clear()
    pipeline('a fox (left), {"json": true}', **settings)
    assert lines(caplog) == []


def test_a_model_states_its_trained_bases(tmp_path, monkeypatch):
    model = ResolvedModel.of("lens-nano")
    assert model.trained_bases == tuple(model.index.get("trained_base_resolutions") or [128])
    monkeypatch.setitem(model.index, "trained_base_resolutions", [128, 256])
    assert model.trained_bases == (128, 256)
