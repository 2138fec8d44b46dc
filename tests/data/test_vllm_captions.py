"""Captions through Ray Data in rounds, as with vLLM, from an engine that writes by rule.

The engine itself needs a GPU. The rest is real: Ray reads the images in its workers, makes the requests of
the engine and reads its columns, and every response is kept and checked.
"""

import io
from functools import partial

import pytest
from PIL import Image

from lens.data.captions.captioner import IncompleteCaptionsError, caption_samples
from lens.data.captions.requests import CaptionInput
from lens.data.captions.settings import VllmCaptionerSettings
from lens.data.captions.vllm_backend import ERROR_COLUMN, create_vllm_processor, vllm_responses

GOOD = "A red fox sits on green grass under a wide blue sky beside two small brown mushrooms at noon."


pytestmark = pytest.mark.usefixtures("two_gpus")


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (160, 90), (shade, 40, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def samples(count: int) -> list[CaptionInput]:
    return [CaptionInput(f"{item:064x}", "", (), partial(jpeg, 10 * item)) for item in range(count)]


def settings_with(**changes) -> VllmCaptionerSettings:
    return VllmCaptionerSettings.of({"model": "seer", "audit": {"min_words": 10}, "side_px": 64} | changes)


def rule(row: dict) -> dict:
    """Write as the engine does: a good caption at the second try."""
    data = row["__data"]
    system, user = data["messages"]
    assert system["role"] == "system" and user["role"] == "user"
    asked, shown = user["content"]
    assert asked["type"] == "text" and shown["image_url"]["url"].startswith("data:image/jpeg;base64,")
    sampling = data["sampling_params"]
    text = GOOD if sampling["seed"] else "Too short."
    if "at most 20 words" in asked["text"]:
        text = "A fox on grass."
    done = {"generated_text": f" {text}\n", "num_input_tokens": 300, "num_generated_tokens": 20}
    return {"__data": data | done | {ERROR_COLUMN: ""}}


def processor_with(engine):
    """Ray's own way to put a stage between what comes before it and what comes after."""
    from ray.llm._internal.batch.stages.base import wrap_postprocess, wrap_preprocess

    def process(settings, before, after):
        first = wrap_preprocess(before, "__data")
        last = wrap_postprocess(after, "__data", include_error_column=True)
        return lambda rows: rows.map(first).map(engine).map(last)

    return process


def test_failed_captions_are_requested_again_in_the_next_round_and_no_response_twice(tmp_path):
    rounds = []

    def caption_batch(settings, requests):
        rounds.append(sorted((request.kind, request.attempt) for request in requests))
        return vllm_responses(settings, requests, processor_with(rule))

    settings = settings_with(kinds=("dense", "brief"))
    done = caption_samples(settings, samples(3), tmp_path, caption_batch=caption_batch)
    assert {(one.dense, one.brief, one.error) for one in done.values()} == {(GOOD, "A fox on grass.", "")}
    assert {(one.prompt_tokens, one.completion_tokens) for one in done.values()} == {(900, 60)}
    assert rounds == [[("dense", 0)] * 3, [("dense", 1)] * 3, [("brief", 0)] * 3]
    again = caption_samples(settings, samples(4), tmp_path, caption_batch=caption_batch)
    assert len(again) == 4 and rounds[3:] == [[("dense", 0)], [("dense", 1)], [("brief", 0)]]


def test_a_sample_without_a_valid_caption_has_the_reason(tmp_path):
    settings = settings_with(max_tries=1)
    done = caption_samples(
        settings, samples(2), tmp_path, caption_batch=partial(vllm_responses, processor=processor_with(rule))
    )
    assert {one.error for one in done.values()} == {"too_short"}


def test_an_engine_error_leaves_the_other_samples_and_the_build_says_how_to_resume(tmp_path):
    def caption_batch(settings, requests):
        third = next(one.key for one in requests if one.sample.id == f"{2:064x}")

        def engine(row, third=third):
            data = row["__data"]
            if data["key"] == third:
                return {"__data": data | {ERROR_COLUMN: "ValueError: too many tiles"}}
            return rule(row)

        return vllm_responses(settings, requests, processor_with(engine))

    with pytest.raises(
        IncompleteCaptionsError, match=r"3 samples have captions, 1 or more have none.*too many tiles"
    ):
        settings = settings_with(audit={"min_words": 2})
        caption_samples(settings, samples(4), tmp_path, caption_batch=caption_batch)


def test_an_engine_that_ends_early_loses_no_response(tmp_path):
    def caption_batch(settings, requests):
        yield next(vllm_responses(settings, requests, processor_with(rule)))

    settings = settings_with(audit={"min_words": 2})
    with pytest.raises(IncompleteCaptionsError, match="without a response"):
        caption_samples(settings, samples(2), tmp_path, caption_batch=caption_batch)
    asked = []

    def rest(settings, requests):
        asked.extend(requests)
        return vllm_responses(settings, requests, processor_with(rule))

    assert len(caption_samples(settings, samples(2), tmp_path, caption_batch=rest)) == 2
    assert len(asked) == 1


def test_the_recipe_configures_vllm(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    settings = settings_with(
        model=str(tmp_path), replicas=3, batch_size=17,
        engine={"max_model_len": 4096, "tensor_parallel_size": 2},
    )  # fmt: skip
    built = create_vllm_processor(settings, lambda row: row, lambda row: row)
    names = built.list_stage_names()
    order = [names.index(name) for name in ("PrepareMultimodalStage", "ChatTemplateStage", "vLLMEngineStage")]
    assert order == sorted(order)
    given = built.get_stage_by_name("vLLMEngineStage").fn_constructor_kwargs
    assert given["model"] == str(tmp_path) and given["should_continue_on_error"]
    asked = {"max_model_len": 4096, "tensor_parallel_size": 2, "limit_mm_per_prompt": {"image": 1}}
    assert asked.items() <= given["engine_kwargs"].items()
    assert (built.config.batch_size, built.config.concurrency) == (17, 3)
