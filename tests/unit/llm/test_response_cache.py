"""Answers that were paid for are kept through kills, and a key changes with whatever an answer depends on."""

import stat

from lens.llm.response_cache import ResponseCache, response_key


def test_answers_are_there_again_when_the_file_is_opened_again(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    answers = ResponseCache(path)
    answers.put("a", {"text": "ein Fuchs \N{FOX FACE}"})
    answers.put("b", {"text": "a\nbee"})
    answers.close()
    again = ResponseCache(path)
    assert (len(again), again.get("a"), again.get("b"), again.get("c")) == (
        2, {"text": "ein Fuchs \N{FOX FACE}"}, {"text": "a\nbee"}, None,
    )  # fmt: skip


def test_an_answer_is_kept_as_soon_as_it_is_put(tmp_path):
    answers = ResponseCache(tmp_path / "answers.jsonl")
    answers.put("a", {"text": "fox"})
    assert ResponseCache(tmp_path / "answers.jsonl").get("a") == {"text": "fox"}


def test_at_whatever_byte_a_kill_cuts_the_file_the_whole_lines_stay_and_new_ones_follow(tmp_path):
    whole = tmp_path / "whole.jsonl"
    answers = ResponseCache(whole)
    answers.put("a", {"text": "fox"})
    first = whole.stat().st_size
    answers.put("b", {"text": "bee"})
    content = whole.read_bytes()
    for length in range(len(content)):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(content[:length])
        cut = ResponseCache(path)
        assert (cut.get("a") is not None) == (length >= first - 1)
        cut.put("c", {"text": "key"})
        cut.close()
        assert ResponseCache(path).get("c") == {"text": "key"}
        assert (ResponseCache(path).get("a") is not None) == (length >= first - 1)


def test_a_bounded_cache_drops_its_oldest_answers_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "answers.jsonl"
    answers = ResponseCache(path, max_bytes=1000, mode=0o600)
    for number in range(50):
        answers.put(f"{number}", {"text": "x" * 50})
        assert path.stat().st_size <= 1000 and stat.S_IMODE(path.stat().st_mode) == 0o600
    again = ResponseCache(path)
    for kept in (answers, again):
        held = [number for number in range(50) if kept.get(f"{number}") is not None]
        assert held == list(range(held[0], 50)) and 5 <= len(held) < 50
    answers.put("large", {"text": "x" * 2000})
    answers.put("next", {"text": "fox"})
    assert ResponseCache(path).get("next") == {"text": "fox"}


def test_a_key_depends_on_everything_that_an_answer_depends_on():
    facts = ("id", "dense-1", "seer", {"temperature": 0.2, "top_p": 1}, 0)
    changed = [
        ("di", *facts[1:]),
        ("id", "dense-2", *facts[2:]),
        ("id", "dense-1", "seer-2", *facts[3:]),
        (*facts[:3], {"temperature": 0.3, "top_p": 1}, 0),
        (*facts[:4], 1),
    ]
    keys = {response_key(*one) for one in (facts, *changed)}
    assert len(keys) == 6
    assert response_key(*facts[:3], {"top_p": 1, "temperature": 0.2}) == response_key(*facts)
