"""Validation of requests: one rule and one message for a value, in the engine and in the HTTP API."""

from dataclasses import replace

import pytest
from fake_engine import MODELS
from pydantic import ValidationError

from lens.errors import SettingError
from lens.serve.api.schemas import CreateImageEditRequest, CreateJobRequest, resolve_request
from lens.serve.engine.request import Bounds, GenerationRequest
from lens.serve.engine.validation import REQUEST_BOUNDS, validate_parameters
from lens.serve.settings.server import ServerSettings

REQUEST = GenerationRequest("lens-nano", "a fox", seed=0, height=64, width=64, steps=4, guidance=2.0)
LARGE = 10**400


@pytest.mark.parametrize(
    ("kind", "bounds", "description", "inside", "outside"),
    [
        (int, Bounds(1, 200), "a whole number from 1 to 200", [1, 200], [0, 201, LARGE]),
        (int, Bounds(1), "a whole number of 1 or more", [1, LARGE], [0, float("inf")]),
        (float, Bounds(0, 100), "a number from 0 to 100", [0.0, 100], [-0.1, 100.1, float("nan")]),
        (float, Bounds(0, excludes_low=True), "a number above 0", [1e-9], [0, float("inf")]),
        (float, Bounds(0, 1, excludes_low=True), "a number above 0, at most 1", [1], [0, 1.1]),
    ],
)
def test_bounds_say_what_they_contain(kind, bounds, description, inside, outside):
    assert bounds.description(kind) == description
    assert all(map(bounds.contains, inside)) and not any(map(bounds.contains, outside))


@pytest.mark.parametrize("kind", [CreateImageEditRequest, CreateJobRequest])
def test_the_document_of_the_api_has_the_bounds_of_the_engine(kind):
    properties, num_found = kind.model_json_schema()["properties"], 0
    for name in properties.keys() & REQUEST_BOUNDS.keys() - {"seed"}:
        bounds, schema = REQUEST_BOUNDS[name][1], properties[name]["anyOf"][0]
        low = schema["exclusiveMinimum" if bounds.excludes_low else "minimum"]
        assert (low, schema.get("maximum", float("inf"))) == (bounds.low, bounds.high)
        num_found += 1
    assert num_found >= 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("steps", 201), ("steps", LARGE), ("guidance", -1.0), ("guidance", 101.0),
     ("solver", "magic"), ("cache", "magic"), ("model", "dall-e-3"), ("deadline_s", 0.0), ("strength", 1.5),
     ("prompt", "a fox\0"), ("prompt", "x" * 32_001), ("negative_prompt", "fog\0")],
)  # fmt: skip
def test_the_api_refuses_a_value_with_the_message_of_the_engine(name, value):
    models = [model.name for model in MODELS]
    with pytest.raises(SettingError) as of_engine:
        validate_parameters(replace(REQUEST, **{name: value}), models, ["ink"], max_steps=200)
    with pytest.raises(SettingError) as of_api:
        body = CreateImageEditRequest.model_validate({"prompt": "a fox", name: value})
        resolve_request(body, MODELS, ["ink"], ServerSettings(), "me")
    assert (of_api.value.setting, str(of_api.value)) == (name, str(of_engine.value))
    assert of_engine.value.setting == name


@pytest.mark.parametrize(
    ("of_server", "of_request", "steps", "expected"),
    [("none", None, 20, None), ("none", "first-block", 4, "first-block"), ("taylorseer", "none", 20, None),
     ("taylorseer", None, 12, "taylorseer"), ("taylorseer", None, 11, None)],
)  # fmt: skip
def test_the_cache_of_the_server_is_for_requests_that_name_none_and_have_the_steps(
    of_server, of_request, steps, expected
):
    body = CreateImageEditRequest(prompt="a fox", steps=steps, cache=of_request)
    settings = ServerSettings.of({"engine": {"cache": of_server}})
    assert resolve_request(body, MODELS, [], settings, "me").draw.cache == expected


def test_a_cache_that_does_not_exist_is_refused_in_the_settings():
    with pytest.raises(SettingError, match="cache is 'magic', but it needs one of none, first-block, taylor"):
        ServerSettings.of({"engine": {"cache": "magic"}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_guidance_that_is_no_number_is_refused_before_an_image_is_read(value):
    with pytest.raises(ValidationError, match="guidance"):
        CreateImageEditRequest.model_validate({"prompt": "a fox", "guidance": value})


def test_a_size_past_the_limits_is_not_answered_with_an_option_of_the_command():
    body = CreateImageEditRequest(prompt="a fox", size="2048x2048")
    with pytest.raises(SettingError, match="size") as caught:
        resolve_request(body, MODELS, ["ink"], ServerSettings(), "me")
    assert "allow-extreme" not in str(caught.value)
