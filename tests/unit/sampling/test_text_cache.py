"""Text features on disk: equal to encoded ones to the bit, never of another source, bounded in bytes."""

import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pytest
import torch
from tiny_models import CAPTURED_LAYERS, tiny_encoder, tiny_tokenizer

from lens.models.prompt_template import PromptTemplate, encode_prompts
from lens.sampling.text_cache import (
    TextFeatureCache,
    TextFeatureSource,
    computation_name,
    encode_with_cache,
    open_text_cache,
)

COMPUTATION = computation_name("cpu", "float32")


def source(encoder_hash="a" * 64, layers=(0, 3), computation=COMPUTATION, date="2026-05-01", length=512):
    return TextFeatureSource(
        encoder_hash, layers, computation, PromptTemplate(tiny_tokenizer(), date), length
    )


def features(seed=0, num_tokens=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num_tokens, 7, generator=generator).to(dtype) for _ in range(2)]


def assert_same(got, expected):
    assert got is not None and len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.fixture
def cache(tmp_path):
    return TextFeatureCache(tmp_path / "text_features", 1_000_000)


def entry_file(cache, key):
    return cache.folder / f"{key.digest}.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_cached_features_equal_encoded_ones_to_the_bit_and_the_encoder_is_not_called(cache, dtype):
    encoder = tiny_encoder().to(getattr(torch, dtype))
    calls = []

    def encode(texts):
        calls.append(texts)
        for text in texts:
            batch, _ = encode_prompts(encoder, tiny_tokenizer(), [text], CAPTURED_LAYERS)
            yield [layer[0] for layer in batch]

    key_of = source(layers=CAPTURED_LAYERS, computation=computation_name("cpu", dtype)).key
    texts = ["two apples", "a fox", "two apples"]
    first = encode_with_cache(texts, cache, key_of, encode)
    assert calls == [["two apples", "a fox"]]
    other = encode_with_cache(["a fox", "a blue fox"], TextFeatureCache(cache.folder, 10**6), key_of, encode)
    assert calls[1:] == [["a blue fox"]]
    assert_same(first[0], first[2])
    assert_same(other[0], first[1])
    again = encode_with_cache([*texts, "a blue fox"], cache, key_of, None)
    for got, expected in zip(again, [*first, other[1]], strict=True):
        assert_same(got, expected)
    for got, expected in zip(first, encode_with_cache(texts, None, key_of, encode), strict=True):
        assert_same(got, expected)


def test_no_two_sources_share_an_entry():
    sources = {
        "base": source(),
        "encoder": source("b" * 64),
        "layers": source(layers=(0, 4)),
        "order of layers": source(layers=(3, 0)),
        "dtype": source(computation=computation_name("cpu", "bfloat16")),
        "device": source(computation=COMPUTATION.replace("cpu", "mps")),
        "quantization": source(computation=computation_name("cpu", "float32", "int8")),
        "date": source(date="2026-05-02"),
        "tokenizer": source()._replace(template=PromptTemplate(tiny_tokenizer(320))),
    }
    digests = {name: one.key("a fox").digest for name, one in sources.items()}
    digests["prompt"] = source().key("a box").digest
    for (name, digest), (other, other_digest) in combinations(digests.items(), 2):
        assert digest != other_digest, (name, other)


def test_chat_format_and_instructions_are_part_of_the_key(monkeypatch):
    plain = source().key("a fox")
    changed = source()
    changed.template.scaffold_ids = changed.template.scaffold_ids[:-1]
    assert changed.key("a fox").digest != plain.digest
    changed = source()
    changed.template.preamble_ids = changed.template.preamble_ids[1:]
    assert changed.key("a fox").digest != plain.digest


def test_the_length_counts_only_where_it_truncates():
    fixed = len(source().template.preamble_ids) + len(source().template.scaffold_ids)
    long = "two red apples to the left of a fox " * 3
    assert source(length=fixed + 4).key(long).digest != source(length=fixed + 5).key(long).digest
    assert source(length=500).key("a fox").digest == source(length=512).key("a fox").digest


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [truncate, flip, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 99)]
)
def test_a_damaged_entry_is_absent_and_gets_replaced(cache, damage):
    key = source().key("a fox")
    cache.put(key, features())
    damage(entry_file(cache, key))
    assert cache.get(key) is None
    cache.put(key, features())
    assert_same(cache.get(key), features())


def test_a_file_of_another_key_is_absent(cache):
    key, other = source().key("a fox"), source().key("a box")
    cache.put(other, features())
    os.replace(entry_file(cache, other), entry_file(cache, key))
    assert cache.get(key) is None and (cache.hits, cache.misses) == (0, 1)


def test_the_least_recently_used_entries_go_first(cache):
    keys = [source().key(prompt) for prompt in ("a fox", "a box", "two apples", "a blue fox")]
    for age, key in enumerate(keys[:3]):
        cache.put(key, features(age))
        os.utime(entry_file(cache, key), (1000 + age, 1000 + age))
    entry_bytes = cache.num_bytes // 3
    foreign = cache.folder / "of_another.safetensors"
    foreign.write_bytes(b"x" * 5000)
    cache.get(keys[0])
    small = TextFeatureCache(cache.folder, 3 * entry_bytes)
    small.put(keys[3], features(3))
    assert [small.get(key) is None for key in keys] == [False, True, False, False]
    assert small.num_bytes <= small.max_bytes and foreign.exists()
    assert_same(small.get(keys[0]), features(0))


def test_features_larger_than_the_cache_are_not_stored(tmp_path):
    cache, key = TextFeatureCache(tmp_path / "small", 100), source().key("a fox")
    cache.put(key, features())
    assert cache.get(key) is None and not cache.folder.exists()


def test_features_that_are_not_finite_are_not_stored(cache):
    key, bad = source().key("a fox"), features()
    bad[1][2, 3] = float("inf")
    cache.put(key, bad)
    assert cache.get(key) is None


def test_an_entry_that_another_process_removed_is_absent(cache):
    key = source().key("a fox")
    cache.put(key, features())
    TextFeatureCache(cache.folder, 10**6).clear()
    assert cache.get(key) is None and cache.num_bytes == 0


def test_temporary_files_of_killed_processes_are_removed_after_a_day(cache):
    cache.put(source().key("a fox"), features())
    old, new = cache.folder / ".lens-1.partial", cache.folder / ".lens-2.partial"
    for partial in (old, new):
        partial.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    cache.put(source().key("a box"), features())
    assert not old.exists() and new.exists()


def test_entries_are_private_and_hold_no_prompt(cache):
    key = source().key("two red apples")
    cache.put(key, features())
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cache.folder, entry_file(cache, key))]
    assert modes == [0o700, 0o600]
    assert b"apples" not in entry_file(cache, key).read_bytes()
    assert os.listdir(cache.folder) == [f"{key.digest}.safetensors"]


def test_a_folder_that_cannot_be_written_is_named_once_and_the_work_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    cache = TextFeatureCache(tmp_path / "file" / "text_features", 10**6)
    with caplog.at_level(logging.WARNING, "lens"):
        for _ in range(2):
            (got,) = encode_with_cache(["a fox"], cache, source().key, lambda texts: [features()])
            assert_same(got, features())
    (record,) = caplog.records
    assert "not cached in" in record.message and str(cache.folder) in record.message


def test_auto_caches_for_a_large_encoder(monkeypatch, tmp_path):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path))
    assert open_text_cache("off", 10**12) is None and open_text_cache("auto", 10**9) is None
    for cache in (open_text_cache("on", 1), open_text_cache("auto", 10**9 + 1)):
        assert cache is not None and cache.folder == tmp_path / "text_features"
    assert os.listdir(tmp_path) == []


def test_several_writers_of_one_folder_never_read_something_else_and_keep_to_the_limit(tmp_path):
    keys = [source().key(prompt) for prompt in ("a fox", "a box", "two apples", "a blue fox", "a red box")]
    whole = TextFeatureCache(tmp_path / "shared", 10**6)
    whole.put(keys[0], features(0))
    limit = 3 * whole.num_bytes

    def work(worker):
        own = TextFeatureCache(whole.folder, limit)  # as in another process
        for turn in range(30):
            place = (worker * 7 + turn * 3) % len(keys)
            got = own.get(keys[place])
            if got is None:
                own.put(keys[place], features(place))
            else:
                assert_same(got, features(place))
        return own._is_writable

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
    whole.put(keys[0], features(0))
    TextFeatureCache(whole.folder, limit).put(keys[1], features(1))
    assert 0 < whole.num_bytes <= limit


def test_a_prompt_that_is_truncated_is_named_once_whether_it_is_cached_or_encoded(cache, caplog):
    template = PromptTemplate(tiny_tokenizer())
    length = len(template.preamble_ids) + len(template.scaffold_ids) + 3
    prompt, own = "a blue fox on a red background to the left of apples", source(length=length)

    def encode(texts):
        batch, _ = encode_prompts(tiny_encoder(), tiny_tokenizer(), texts, (0, 3), length)
        return [[layer[0] for layer in batch]]

    with caplog.at_level(logging.WARNING, "lens"):
        for _ in range(2):
            encode_with_cache([prompt], cache, own.key, encode)
    assert [("are dropped" in record.message) for record in caplog.records] == [True]
    assert cache.hits == 1
