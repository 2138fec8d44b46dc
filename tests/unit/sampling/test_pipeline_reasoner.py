"""A reasoner in front of a pipeline: asked once a prompt, before it is encoded; its answers are drawn."""

import pytest
import torch
from tiny_models import tiny_pipeline

from lens.errors import GenerationCancelledError, PromptRefusedError, SettingError
from lens.reasoner.outcome import Reasoned


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


class Scripted:
    """Adds light to a prompt, refuses bombs, fails on ghosts."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt, *, seed=0, should_stop=None):
        self.asked.append(prompt)
        if "bomb" in prompt:
            return Reasoned("refused", prompt, prompt, "The policy refuses it.", "crime")
        if "ghost" in prompt:
            return Reasoned("failed", prompt, prompt, "The language model did not answer.")
        return Reasoned("refined", f"{prompt}, in the rain", prompt)


def draw(pipeline, prompt, **request):
    generator = torch.Generator().manual_seed(5)
    common = {"num_inference_steps": 1, "guidance_scale": 1, "output_type": "latent"}
    return pipeline(prompt, generator=generator, **(common | request))


def test_each_distinct_prompt_is_asked_about_once_and_the_answers_are_drawn(pipeline):
    reasoner = Scripted()
    output = draw(pipeline, ["a fox", "a cat", "a fox"], num_images_per_prompt=2, reasoner=reasoner)
    refined = ["a fox, in the rain", "a cat, in the rain", "a fox, in the rain"]
    assert reasoner.asked == ["a fox", "a cat"]
    assert [one.prompt for one in output.reasoned] == refined
    assert [one.original for one in output.reasoned] == ["a fox", "a cat", "a fox"]
    assert torch.equal(output.images, draw(pipeline, refined, num_images_per_prompt=2).images)


def test_a_refusal_comes_before_anything_is_encoded(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline, "encode_prompt", lambda *_, **__: pytest.fail("a prompt was encoded"))
    with pytest.raises(PromptRefusedError, match=r"category crime.*Nothing is drawn") as caught:
        draw(pipeline, ["a fox", "a bomb"], reasoner=Scripted())
    assert caught.value.category == "crime"


def test_a_failure_is_told_and_draws_the_prompt_as_it_is(pipeline, caplog):
    output = draw(pipeline, "a ghost", reasoner=Scripted())
    assert "The prompt is drawn as it was written" in caplog.text
    assert output.reasoned[0].outcome == "failed"
    assert torch.equal(output.images, draw(pipeline, "a ghost").images)


def test_without_a_reasoner_nothing_is_reasoned_and_tuples_are_as_before(pipeline):
    assert draw(pipeline, "a fox").reasoned is None
    (images,) = draw(pipeline, "a fox", return_dict=False)
    (reasoned,) = draw(pipeline, "a fox", return_dict=False, reasoner=Scripted())
    assert images.shape == reasoned.shape and not torch.equal(images, reasoned)


def test_a_reasoner_needs_a_prompt_and_is_a_function(pipeline):
    embeds, mask, *_ = pipeline.encode_prompt("a fox")
    with pytest.raises(SettingError, match="reasoner is 'given', but it needs a prompt"):
        draw(pipeline, None, prompt_embeds=embeds, prompt_mask=mask, reasoner=Scripted())
    with pytest.raises(SettingError, match="reasoner is 'nano', but it needs a function"):
        draw(pipeline, "a fox", reasoner="nano")


def test_a_callback_stops_between_two_prompts(pipeline):
    def stop(stage, done, total):
        if (stage, done, total) == ("reasoning", 1, 2):
            raise GenerationCancelledError("stopped")

    reasoner = Scripted()
    with pytest.raises(GenerationCancelledError):
        draw(pipeline, ["a fox", "a cat"], reasoner=reasoner, on_progress=stop)
    assert reasoner.asked == ["a fox"]
