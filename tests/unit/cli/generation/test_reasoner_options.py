"""Where the settings of the command's reasoner come from, and which of several places wins."""

import json

import pytest

from lens.cli.generation.reasoner_options import LOCAL_TIME_LIMIT_S, ReasonerOptions
from lens.errors import SettingError

URL = "http://127.0.0.1:1/v1"


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """The file of a person's own reasoner."""
    monkeypatch.setenv("LENS_CONFIG", str(tmp_path))
    monkeypatch.delenv("LENS_REASONER", raising=False)
    file = tmp_path / "reasoner.yaml"
    endpoint = {"url": URL, "model": "own"}
    file.write_text(json.dumps({"backend": "endpoint", "endpoint": endpoint, "system_prompt": "text"}))
    return file


def test_the_option_wins_over_the_environment_that_over_the_file_and_that_over_the_model(
    own_file, monkeypatch
):
    endpoint = ReasonerOptions().settings("nano").endpoint
    assert endpoint is not None and endpoint.model == "own"
    monkeypatch.setenv("LENS_REASONER", "gpt-oss")
    assert ReasonerOptions().settings("nano").backend == "gpt-oss"
    assert ReasonerOptions("owner/name").settings("nano").model == "owner/name"
    monkeypatch.delenv("LENS_REASONER")
    own_file.unlink()
    assert ReasonerOptions().settings("nano").backend == "nano"


def test_options_replace_what_a_file_says(own_file):
    settings = ReasonerOptions(str(own_file), "other", "general").settings("nano")
    assert settings.endpoint is not None
    assert (settings.endpoint.url, settings.endpoint.model) == (URL, "other")
    assert settings.system_prompt == "general"


def test_a_model_of_this_machine_has_more_time_than_an_endpoint_unless_a_file_says_how_much(own_file):
    assert ReasonerOptions().settings("nano").time_limit_s < LOCAL_TIME_LIMIT_S
    assert ReasonerOptions("gpt-oss").settings("nano").time_limit_s == LOCAL_TIME_LIMIT_S
    own_file.write_text("{backend: gpt-oss, time_limit_s: 7}")
    assert ReasonerOptions().settings("nano").time_limit_s == 7


def test_a_folder_is_a_model_of_transformers(tmp_path, own_file):
    assert ReasonerOptions(str(tmp_path)).settings("nano").backend == "transformers"


def test_a_mistake_in_a_file_is_named_with_its_place(own_file):
    own_file.write_text("{backend: endpont}")
    with pytest.raises(SettingError, match=r"backend is 'endpont'.*reasoner\.yaml"):
        ReasonerOptions().check(is_used=True)
    ReasonerOptions().check(is_used=False)  # off means off: the file is not read


def test_without_a_policy_of_ones_own_a_model_that_is_down_refuses_nothing(tmp_path):
    assert ReasonerOptions().refusal_policy().when_down == "allow"
    (tmp_path / "policy.yaml").write_text("{}")
    policy = ReasonerOptions(policy=tmp_path / "policy.yaml").refusal_policy()
    assert (policy.when_down, policy.categories) == ("refuse", ())
