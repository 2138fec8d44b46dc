"""The released tokenizer of GPT-OSS, its vocabulary cut to what the tests write (see tests/golden)."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lens.models.tokenizer import WORD_PATTERN

CONTROL_IDS = {
    "<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003,
    "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012,
}  # fmt: skip


@cache
def released_tokenizer() -> PreTrainedTokenizerFast:
    """Return the released tokenizer, its vocabulary cut to what these strings need (see tests/golden).

    Published are ranks alone; the merges follow from them: the two parts that an entry is made of are what
    merging by lower ranks leaves of it.
    """
    ranks: dict[str, int] = json.loads(
        (Path(__file__).parents[1] / "golden" / "o200k_subset.json").read_text()
    )
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def spelled(text: str) -> str:
        return letters.pre_tokenize_str(text)[0][0]

    merges = [(spelled(first), spelled(second)) for first, second in map(halves_in(ranks), ranks) if second]
    vocabulary = {spelled(text): rank for text, rank in ranks.items()}
    backend = Tokenizer(models.BPE(vocab=vocabulary | CONTROL_IDS, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"), letters]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(CONTROL_IDS))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|return|>"
    )


def halves_in(ranks: dict[str, int]):
    def halves(text: str) -> tuple[str, str]:
        parts = list(text)
        while len(parts) > 2:
            pairs = ["".join(pair) for pair in pairwise(parts)]
            at = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], 10**9))
            parts[at : at + 2] = [pairs[at]]
        return (parts[0], parts[1]) if len(parts) == 2 else (parts[0], "")

    return halves
