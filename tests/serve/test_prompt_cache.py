"""Text features that are kept: by what made them and the text, the least recently used go first."""

import torch

from lens.serve.engine.prompt_cache import PromptCache


def features(text):
    return [torch.full((len(text), 2), 1.0), torch.full((len(text), 2), 2.0)]  # 16 bytes a character


def cache(max_bytes):
    encoded = []

    def encode(text):
        encoded.append(text)
        return features(text)

    texts = PromptCache(max_bytes)
    return texts, encoded, lambda source, text: texts.get_or_encode(source, text, encode)


def test_a_text_is_encoded_once_for_each_source():
    texts, encoded, of = cache(10_000)
    first = of("one", "abc")
    assert of("one", "abc") is first
    of("two", "abc")
    assert encoded == ["abc", "abc"] and (texts.hits, texts.misses) == (1, 2)


def test_what_was_not_used_for_longest_goes_first():
    texts, encoded, of = cache(16 * 9)
    for text in ("aaa", "bbb", "ccc", "aaa", "ddd"):
        of("one", text)
    assert texts.num_bytes == 16 * 9 and len(texts) == 3
    encoded.clear()
    for text in ("aaa", "ccc", "ddd", "bbb"):
        of("one", text)
    assert encoded == ["bbb"]


def test_a_text_too_large_to_keep_is_still_answered():
    texts, _, of = cache(16)
    assert of("one", "a long text")[0].shape == (11, 2)
    of("one", "b")
    assert len(texts) == 1 and texts.num_bytes == 16
