"""Settings, system prompts and categories say what is wrong with them."""

import hashlib

import pytest

from lens.errors import SettingError
from lens.reasoner.factory import build_language_model, build_reasoner
from lens.reasoner.refusal import RefusalPolicy, refusal_choices
from lens.reasoner.settings import ReasonerSettings
from lens.reasoner.system_prompts import read_system_prompt, system_prompt_names
from lens.serve.safety.moderation import ModerationPolicy, PolicySettings

URL = {"url": "http://127.0.0.1:9/v1", "model": "writer"}


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"backend": "endpoint"}, "reasoner.endpoint"),
        ({"backend": "nano", "endpoint": URL}, "reasoner.endpoint"),
        ({"backend": "transformers"}, "reasoner.model"),
        ({"backend": "gpt-oss", "model": "x"}, "reasoner.model"),
        ({"backend": "endpoint", "endpoint": URL | {"url": "localhost:8000"}}, "endpoint.url"),
        ({"backend": "endpoint", "endpoint": URL | {"request": {"messages": []}}}, "endpoint.request"),
        ({"backend": "other"}, "backend"),
        ({}, "backend"),
        ({"backend": "nano", "max_tokens": 0}, "max_tokens"),
        ({"backend": "nano", "time_limit_s": 0}, "time_limit_s"),
        ({"backend": "nano", "temperature": 1}, "temperature"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, setting):
    with pytest.raises(SettingError, match=setting):
        ReasonerSettings.of(values)


def test_an_endpoint_times_out_early():
    endpoint = ReasonerSettings.of({"backend": "endpoint", "endpoint": URL}).endpoint
    assert endpoint is not None
    assert endpoint.timeout_s * endpoint.max_attempts <= 60


def test_gpt_oss_needs_the_text_encoder_of_a_pipeline():
    with pytest.raises(SettingError, match="text encoder"):
        build_language_model(ReasonerSettings.of({"backend": "gpt-oss"}))
    with pytest.raises(SettingError, match="language model"):
        build_language_model(ReasonerSettings.of({"backend": "nano"}))


def test_system_prompts_have_names_and_the_hash_of_their_text():
    assert system_prompt_names() == ["general", "geneval-metadata", "text"]
    for name in system_prompt_names():
        prompt = read_system_prompt(name)
        assert prompt.hash == hashlib.sha256(prompt.text.encode()).hexdigest()
        assert prompt.sees_metadata == (name == "geneval-metadata")
        assert not prompt.text.startswith("# sees")


def test_a_file_is_a_system_prompt_too(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("# sees-metadata\r\nBe brief.\n")
    prompt = read_system_prompt(str(file))
    assert (prompt.name, prompt.text, prompt.sees_metadata) == ("mine", "Be brief.", True)


@pytest.mark.parametrize("content", [b"", b" \n", b"# sees-metadata\n", b"\xff\xfe\xfa", b"x" * 20_001])
def test_a_file_without_a_usable_text_is_named(tmp_path, content):
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(SettingError, match=r"reasoner\.system_prompt"):
        read_system_prompt(str(file))


def test_an_unknown_system_prompt_is_named_with_those_that_exist():
    settings = ReasonerSettings.of({"backend": "endpoint", "endpoint": URL, "system_prompt": "genral"})
    with pytest.raises(SettingError, match="general, geneval-metadata, text"):
        build_reasoner(settings, categories=[], count_tokens=len)


def test_the_policy_that_ships_has_categories_and_refuses_what_it_cannot_check():
    policy = ModerationPolicy.from_file().settings.reasoner
    assert refusal_choices(policy.categories) == (
        "minors", "sexual", "real_people", "hate", "violence", "self_harm", "crime", "none",
    )  # fmt: skip
    assert policy.when_down == "refuse"


@pytest.mark.parametrize("names", [("hate", "Hate"), ("none",), ("a b",), ("",), ("1st",)])
def test_names_of_categories_that_cannot_be_answers_are_named(names):
    values = {"categories": [{"name": name, "description": "x"} for name in names]}
    with pytest.raises(SettingError, match="categories"):
        RefusalPolicy.of(values)
    with pytest.raises(SettingError, match="categories"):
        PolicySettings.of({"reasoner": values})
