"""A policy refuses what its file says, with a reason and a record, also when an endpoint is down."""

import base64
import io
import json
import logging
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import yaml
from local_server import Answering
from PIL import Image

from lens.errors import LensError, ModerationError, SettingError
from lens.nano.world.scenes import draw_scene, random_scene
from lens.serve.safety.moderation import DEFAULT_POLICY, ModerationPolicy, flagged_categories
from lens.serve.safety.word_filter import WordRule, find_refusing_rule, normalize


def scene() -> Image.Image:
    pixels = draw_scene(random_scene(np.random.default_rng(0), 64, 96)).transpose(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).astype(np.uint8))


@pytest.fixture
def policy_of(tmp_path):
    made = []

    def make(values: dict | None = None) -> ModerationPolicy:
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump(values or {}))
        made.append(ModerationPolicy.from_file(path, tmp_path / "audit.jsonl"))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


@pytest.fixture
def records(tmp_path):
    return lambda: [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


# Rules on words.


def rule(**values) -> WordRule:
    return WordRule.of({"name": "test"} | values)


@pytest.mark.parametrize(
    ("word", "prompt", "is_found"),
    [
        ("war", "a war scene", True),
        ("war", "a warm scene", False),
        ("war", "post-WAR_era", True),
        ("war", "w\u200bar", True),
        ("war", "w\u00e4r", True),
        ("war", "\uff57ar", True),
        ("war", "w.a.r", False),
        ("na\u00efve art", "a naive   art show", True),
        ("naive art", "naive-art", True),
        ("naive art", "naive and art", False),
        ("\u6218\u4e89", "\u4e00\u573a\u6218\u4e89\u753b", True),
        ("\uc804\uc7c1", "\uc804\uc7c1\uc774", True),
        ("\u0432\u043e\u0439\u043d\u0430", "\u0412\u041e\u0419\u041d\u0410 \u0438 \u043c\u0438\u0440", True),
        ("c++", "drawn in c++ style", True),
    ],
)
def test_words_are_found_whole_whatever_their_case_accents_and_width(word, prompt, is_found):
    assert (find_refusing_rule([rule(words=[word])], prompt) is not None) is is_found


def test_patterns_are_searched_in_the_plain_prompt():
    found = rule(patterns=[r"\bguns?\b", "rifle[ds]"])
    assert [found.matches(normalize(text)) for text in ("two GUNS", "begun", "RIFLED", "rifle")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_rule_of_two_lists_needs_something_of_each():
    both = [rule(words=["child"], and_words=["knife"], and_patterns=["guns?"])]
    assert find_refusing_rule(both, "a knife beside a child") and find_refusing_rule(both, "child with guns")
    assert find_refusing_rule(both, "a child") is find_refusing_rule(both, "a knife") is None


def test_what_is_allowed_is_hidden_from_later_rules_which_still_see_the_rest():
    rules = [rule(action="allow", words=["naked eye"]), rule(words=["naked"])]
    assert find_refusing_rule(rules, "stars for the naked eye") is None
    assert find_refusing_rule(rules, "a naked man and the naked eye") is rules[1]
    assert find_refusing_rule(rules[::-1], "stars for the naked eye") is rules[1], (
        "rules are asked in their order"
    )


def test_what_is_hidden_does_not_join_its_neighbours():
    rules = [rule(action="allow", words=["and"]), rule(words=["red lemon"])]
    assert find_refusing_rule(rules, "red and lemon") is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "words or patterns to look for"),
        ({"words": [" "]}, "words with letters"),
        ({"patterns": ["("]}, "a regular expression"),
        ({"patterns": ["x*"]}, "does not match the empty text"),
        ({"words": ["x"], "action": "warn"}, "'refuse' or 'allow'"),
        ({"wrods": ["x"]}, "a known name"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_the_file_is_read(values, says, policy_of):
    with pytest.raises(SettingError, match=says):
        policy_of({"prompts": [{"name": "test"} | values]})


# The policy that ships.


@pytest.mark.parametrize(
    "prompt",
    ["nude child", "an 8-year-old, naked", "sexy schoolgirl", "erotic, 17yo", "loli", "nsfw, aged 15",
     "a SEXUAL scene with a t\u00e8en", "twelve years old, topless", "a child seen by the naked eye, nude"],
)  # fmt: skip
def test_the_default_policy_refuses_sexual_content_with_minors(prompt, tmp_path):
    with pytest.raises(ModerationError, match="involves minors is never drawn") as refused:
        ModerationPolicy.from_file(None, tmp_path / "audit.jsonl").check_prompt(prompt)
    assert refused.value.by.startswith("rule minors") and not refused.value.is_unavailable


@pytest.mark.parametrize(
    "prompt",
    ["a fox above three lemons", "children play in a park", "a child looks at stars with the naked eye",
     "sexy woman, 28 years old", "a 16th century nude", "a class on sex education for teenagers", "",
     "a sextant and a young boy", "Essex, 12 houses"],
)  # fmt: skip
def test_the_default_policy_lets_the_rest_pass(prompt, tmp_path):
    policy = ModerationPolicy.from_file(None, tmp_path / "audit.jsonl")
    policy.check_prompt(prompt)
    policy.check_image(scene())
    assert not policy.checks_images and not (tmp_path / "audit.jsonl").exists()


def test_long_prompts_made_to_be_slow_are_answered_at_once(tmp_path):
    policy = ModerationPolicy.from_file(None, tmp_path / "audit.jsonl")
    began = time.process_time()
    for hard in ("1" * 20_000, "5-" * 10_000, "5" + "-" * 20_000, "little " * 4_000, "aged : " * 4_000):
        policy.check_prompt(hard)
    assert time.process_time() - began < 2


def test_a_file_that_begins_with_the_shipped_one_says_only_what_differs(policy_of):
    policy = policy_of({"base": str(DEFAULT_POLICY), "nudenet": {"refuse_at": 0.9}})
    assert policy.checks_images
    with pytest.raises(ModerationError):
        policy.check_prompt("nude child")


# Records.


def test_a_refusal_has_a_reason_and_a_record_without_the_prompt(policy_of, records, tmp_path):
    policy = policy_of({"prompts": [{"name": "war", "words": ["war"], "reason": "No wars here."}]})
    with pytest.raises(ModerationError) as refused:
        policy.check_prompt("a secret war", user="anna\n")
    (record,) = records()
    assert str(refused.value) == f"The prompt is refused: No wars here. (record {record['id']})"
    assert (refused.value.what, refused.value.reason) == ("prompt", "No wars here.")
    assert {key: record[key] for key in record if key not in ("id", "at")} == {
        "decision": "refused", "what": "prompt", "by": "rule war", "reason": "No wars here.",
        "user": "anna\n",
    }  # fmt: skip
    assert record["at"].endswith("+00:00")
    assert "secret" not in (tmp_path / "audit.jsonl").read_text()
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_the_prompt_is_recorded_where_the_policy_says_so(policy_of, tmp_path):
    audit = {"file": "mine.jsonl", "with_prompt": True}
    policy = policy_of({"prompts": [{"name": "war", "words": ["war"]}], "audit": audit})
    with pytest.raises(ModerationError, match="matches rule war"):
        policy.check_prompt("a secret war")
    assert json.loads((tmp_path / "mine.jsonl").read_text())["prompt"] == "a secret war"
    assert not (tmp_path / "audit.jsonl").exists(), "the policy's own file goes before the server's"


def test_without_a_file_refusals_go_into_the_log(caplog):
    with caplog.at_level(logging.INFO, "lens"), pytest.raises(ModerationError):
        ModerationPolicy.from_file().check_prompt("nude child")
    assert '"decision": "refused"' in caplog.text and "nude" not in caplog.text


def test_a_refusal_that_cannot_be_recorded_is_an_error_that_does_not_let_pass(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LensError, match="A refusal cannot be recorded"):
        ModerationPolicy.from_file(None, tmp_path / "file" / "audit.jsonl").check_prompt("nude child")


def test_records_of_many_threads_are_whole_lines(tmp_path, records):
    policy = ModerationPolicy.from_file(None, tmp_path / "audit.jsonl")

    def refuse(number: int) -> None:
        with pytest.raises(ModerationError):
            policy.check_prompt("nude child", user=f"{number}" * 50)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(refuse, range(64)))
    assert len({record["id"] for record in records()}) == 64


def test_a_policy_file_that_is_missing_or_wrong_is_an_error_that_names_it(tmp_path, policy_of):
    with pytest.raises(SettingError, match=r"policy is .*none\.yaml"):
        ModerationPolicy.from_file(tmp_path / "none.yaml")
    for values, says in (
        ({"prompt": []}, "prompt is .* a known name"),
        ({"nudenet": {"refuse_at": 0}}, "refuse_at"),
        ({"endpoint": {"url": "ftp://here"}}, "http"),
    ):
        with pytest.raises(SettingError, match=says):
            policy_of(values)


# nudenet on results.


class Sees:
    """Stands for the detector, which no picture of ours alarms."""

    def __init__(self, score: float):
        self.score = score

    def detect(self, _: np.ndarray) -> list[dict]:
        face = {"class": "FACE_MALE", "score": 1}
        return [{"class": "FEMALE_GENITALIA_EXPOSED", "score": self.score}, face]


def test_nudenet_refuses_pictures_from_its_limit_on(policy_of, records):
    policy = policy_of({"nudenet": {"refuse_at": 0.6, "reason": "Nakedness."}})
    policy.check_image(scene().convert("RGBA"))  # by the real detector
    policy._nudenet.__dict__["_detector"] = Sees(0.59)
    policy.check_image(scene())
    policy._nudenet.__dict__["_detector"] = Sees(0.6)
    with pytest.raises(ModerationError, match="The image is refused: Nakedness") as refused:
        policy.check_image(scene(), user="anna")
    assert refused.value.by == "nudenet" and not refused.value.is_unavailable
    assert [(one["what"], one["by"], one["user"]) for one in records()] == [("picture", "nudenet", "anna")]


# An endpoint.


def moderation(flagged: bool, categories: dict | None = None, scores: dict | None = None):
    result = {"flagged": flagged, "categories": categories or {}, "category_scores": scores or {}}
    return 200, json.dumps({"id": "modr-1", "model": "m", "results": [result]}).encode()


@pytest.fixture
def asking(policy_of):
    def make(url: str, **values) -> ModerationPolicy:
        quick = {"url": url, "wait_s": 0, "timeout_s": 5}
        return policy_of({"endpoint": quick | values})

    return make


FINE = moderation(False, {"violence": False})
BAD = moderation(True, {"violence": True, "sexual": True, "hate": False})


def test_an_endpoint_is_asked_as_the_api_has_it_and_lets_pass(served, asking, monkeypatch):
    monkeypatch.setenv("SEER_KEY", "secret")
    server = served(FINE)
    policy = asking(server.url, model="omni", api_key_variable="SEER_KEY", checks=["prompts", "pictures"])
    assert policy.checks_images
    policy.check_prompt("a fox \ud83e")
    policy.check_image(Image.new("RGBA", (3000, 30)))
    (path, headers, body), (_, _, second) = server.asked
    assert path == "/v1/moderations"
    assert headers["authorization"] == "Bearer secret"
    assert body == {"input": "a fox ?", "model": "omni"}
    (part,) = second["input"]
    kind, data = part["image_url"]["url"].split(",")
    assert (part["type"], kind) == ("image_url", "data:image/jpeg;base64")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1024, 10)


def test_an_endpoint_checks_only_what_it_is_there_for(served, asking):
    server = served(BAD)
    policy = asking(server.url, checks=["pictures"])
    policy.check_prompt("a fox")
    assert server.asked == []
    with pytest.raises(ModerationError, match="The image is refused"):
        policy.check_image(scene())


def test_what_an_endpoint_flags_is_refused_with_its_categories(served, asking, records):
    policy = asking(served(BAD).url, reason="Not here")
    with pytest.raises(ModerationError, match="The prompt is refused: Not here: sexual, violence"):
        policy.check_prompt("a fox")
    assert [(one["by"], one["decision"]) for one in records()] == [("endpoint", "refused")]


def test_limits_decide_in_place_of_the_flag(served, asking):
    strict = moderation(False, scores={"violence": 0.4, "hate": 0.1})
    policy = asking(served(strict).url, limits={"violence": 0.3, "hate": 0.3})
    with pytest.raises(ModerationError, match="violence"):
        policy.check_prompt("a fox")
    lenient = moderation(True, {"violence": True}, {"violence": 0.4})
    asking(served(lenient).url, limits={"violence": 0.5}).check_prompt("a fox")


def test_a_word_rule_decides_before_the_endpoint_is_asked(served, policy_of):
    server = served(FINE)
    policy = policy_of({"prompts": [{"name": "war", "words": ["war"]}], "endpoint": {"url": server.url}})
    with pytest.raises(ModerationError, match="war"):
        policy.check_prompt("war")
    assert server.asked == []


def dripping(to: Answering) -> None:
    """Send a good answer byte by byte until nobody listens any more."""
    to.send_response(200)
    to.send_header("content-length", str(len(FINE[1])))
    to.end_headers()
    with suppress(OSError):
        for byte in FINE[1]:
            to.wfile.write(bytes([byte]))
            time.sleep(0.05)


DOWN = {
    "503": (503, b""), "silent": 3.0, "drips": dripping, "endless": (200, b" " * (2**20 + 1)),
    "no json": (200, b"<html>"), "no results": (200, b'{"results": []}'),
    "no flag": (200, b'{"results": [{}]}'), "strange": (200, b"[]"), "401": (401, b"{}"), "moved": (302, b""),
}  # fmt: skip
FINAL = ("401", "moved")


@pytest.mark.parametrize("way", DOWN)
def test_an_endpoint_that_is_down_refuses_and_says_that_it_may_be_another_time(way, served, asking, records):
    server = served(DOWN[way])
    policy = asking(server.url, timeout_s=0.2)
    with pytest.raises(ModerationError, match="Moderation is not available") as refused:
        policy.check_prompt("a fox")
    assert refused.value.is_unavailable
    assert server.url not in str(refused.value), "where the operator's endpoint is, is nobody's business"
    (record,) = records()
    assert server.url in record["cause"] and record["decision"] == "refused"
    assert len(server.asked) == (1 if way in FINAL else 2)


def test_an_endpoint_that_nobody_listens_at_refuses(asking, served):
    server = served(FINE)
    server.close()
    with pytest.raises(ModerationError, match="Moderation is not available"):
        asking(server.url).check_prompt("a fox")


def test_one_failure_is_asked_again(served, asking):
    server = served((503, b""), FINE)
    asking(server.url).check_prompt("a fox")
    assert len(server.asked) == 2


def test_an_endpoint_that_is_down_lets_pass_where_the_policy_says_so_with_a_record_and_one_warning(
    served, asking, records, caplog
):
    server = served((500, b""))
    policy = asking(server.url, when_down="allow", max_attempts=1)
    for _ in range(3):
        policy.check_prompt("a fox")
    assert [one["decision"] for one in records()] == ["unchecked"] * 3
    assert caplog.text.count("requests pass unchecked") == 1


@pytest.mark.parametrize("answer", [{}, {"results": [{"flagged": "no"}]}, {"results": None}])
def test_an_answer_that_is_none_is_never_read_as_yes(answer):
    with pytest.raises((LookupError, TypeError)):
        flagged_categories(answer, {})
    with pytest.raises((LookupError, TypeError)):
        flagged_categories(answer, {"violence": 0.5})
