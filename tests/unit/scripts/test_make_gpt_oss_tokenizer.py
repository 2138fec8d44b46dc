"""The tokenizer of GPT-OSS made from ranks: its ids, and the 97 and 22 tokens around a prompt.

With the whole vocabulary where its folder is (scripts/make_gpt_oss_tokenizer.py writes it), otherwise with
the part in tests/golden alone.
"""

import json
from itertools import pairwise
from pathlib import Path

import make_gpt_oss_tokenizer as script
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from lens.errors import LensError
from lens.models.prompt_template import PromptTemplate

SUBSET = Path(__file__).parents[2] / "golden" / "o200k_subset.json"
NOT_TESTED = (
    f"NOT TESTED: the whole vocabulary of GPT-OSS, as {script.tokenizer_folder()} is missing; "
    "`python scripts/make_gpt_oss_tokenizer.py` writes it."
)
# Ids by the encoder of the npm package gpt-tokenizer 4.0.0 (o200k_harmony).
IDS = {
    "a fox isn't 12345": [64, 68347, 12471, 220, 7633, 2548],
    "F\u00fcchslein l\u00e4uft \u00fcber die Stra\u00dfe": [37, 572, 39549, 72149, 78118, 5469, 1076, 71184],
    "\u4e24\u53ea\u7ea2\u82f9\u679c\u5728\u72d0\u72f8": [20026, 18637, 16491, 32176, 2178, 133597],
    "\u041b\u0438\u0441\u0430 \u043f\u0440\u044b\u0433\u0430\u0435\u0442": [8078, 48609, 37824, 4601, 1041],
    "\ub450 \uac1c\uc758 \ube68\uac04 \uc0ac\uacfc": [27708, 21945, 3408, 171207, 12780, 9023, 8562],
    "\u062a\u0641\u0627\u062d\u062a\u0627\u0646 \u062d\u0645\u0631\u0627\u0648\u0627\u0646": [
        126954, 40369, 1195, 80072, 4280, 10878,
    ],
    "\u0926\u094b \u0932\u093e\u0932 \u0938\u0947\u092c": [133373, 100356, 4291, 3188],
    "\U0001f98a e\u0301": [4103, 99, 232, 319, 13430],
}  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    if not (script.tokenizer_folder() / "tokenizer.json").is_file():
        pytest.skip(NOT_TESTED)
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(script.tokenizer_folder())


@pytest.fixture(scope="module")
def subset():
    ranks = {token.encode(): rank for token, rank in json.loads(SUBSET.read_text()).items()}
    return script.build_tokenizer(ranks)


def test_merges_are_all_pairs_of_a_token_in_the_order_of_ranks():
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"abc": 5}
    assert script.merges_of(ranks) == [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc"), (b"ab", b"c")]


def test_bytes_are_spelled_as_in_byte_level_vocabularies():
    letters = script.spelling()
    assert sorted(letters) == list(range(256)) and sorted(letters.values()) == sorted(ByteLevel.alphabet())
    text = "".join(map(chr, range(1, 128))) + "\u00e9\u4e2d"
    (whole,) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert "".join(letters[byte] for byte in text.encode()) == whole[0]


def test_control_and_reserved_tokens_have_the_published_ids():
    tokens = script.special_tokens()
    assert list(tokens.values()) == list(range(199998, 201088))
    assert tokens["<|endoftext|>"] == 199999 and tokens["<|return|>"] == 200002
    assert tokens["<|reserved_200000|>"] == 200000 and tokens["<|endofprompt|>"] == 200018
    assert all(first < second for first, second in pairwise(tokens.values()))


def test_ranks_are_read_from_lines_of_base64():
    assert list(script.parse_ranks(b"YmM= 1\n\nYQ== 0\n").items()) == [(b"a", 0), (b"bc", 1)]


def test_the_part_of_the_vocabulary_counts_97_and_22(subset):
    template = PromptTemplate(subset)
    assert (len(template.preamble_ids), len(template.scaffold_ids)) == (97, 22)
    with pytest.raises(LensError, match=r"not GPT-OSS's: \d+ entries, \(97, 22\) tokens"):
        script.check(subset)


def test_a_folder_loads_as_the_tokenizer_that_was_written(subset, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "check", lambda tokenizer: None)  # a part has fewer entries
    ranks = {token.encode(): rank for token, rank in json.loads(SUBSET.read_text()).items()}
    folder = script.write_tokenizer(tmp_path / "new" / "tokenizer", ranks)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder)
    assert (loaded.pad_token, loaded.eos_token) == ("<|endoftext|>", "<|return|>")
    text = PromptTemplate(subset).render("two red apples")
    assert loaded(text)["input_ids"] == subset(text)["input_ids"]
    assert [path.name for path in folder.parent.iterdir()] == ["tokenizer"]
    assert (folder / "chat_template.jinja").is_file()


def test_the_whole_vocabulary_counts_97_and_22_and_gives_the_published_ids(whole):
    script.check(whole)
    assert {text: whole(text, add_special_tokens=False)["input_ids"] for text in IDS} == IDS
    assert whole("<|start|>user<|message|>")["input_ids"] == [200006, 1428, 200008]
    assert [whole.decode(ids) for ids in IDS.values()] == list(IDS)
