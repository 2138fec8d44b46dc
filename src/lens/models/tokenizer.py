"""Byte-level BPE tokenizers with harmony's control tokens: trained, or built from a vocabulary and merges.

A trained one loads and behaves like the released GPT-OSS tokenizer, but is smaller: text is split as in
o200k, tokens are byte-level, control tokens lie outside the learned vocabulary. Knows nothing of models.
Spec: sections 4 and 6.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lens.errors import SettingError
from lens.models.prompt_template import chat_template

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

CONTROL_TOKENS = (
    "<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>",
    "<|message|>", "<|call|>",
)  # fmt: skip
PAD_TOKEN, EOS_TOKEN, BOS_TOKEN = "<|endoftext|>", "<|return|>", "<|startoftext|>"

NUM_BYTES = 256

_WORD_START = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_WORD_REST = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
WORD_PATTERN = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_WORD_START}*{_WORD_REST}+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_WORD_START}+{_WORD_REST}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""The split of text before merging, as in o200k: words by case, up to three digits, marks, spaces."""

_CLOSING_QUOTE = r"(?:[\"\u201c\u201d\u00ab\u00bb\u300d\u300f]|['\u2018\u2019](?![a-z]))"
QUOTED_LETTERS_PATTERN = "|".join(
    (
        rf"[a-z0-9](?=[a-z0-9]{{0,7}}{_CLOSING_QUOTE})",
        # WORD_PATTERN joins a mark to the word after it: without this, "FOX" at the start stays whole.
        rf"[^\s\p{{L}}\p{{N}}](?=[a-z0-9]{{1,8}}{_CLOSING_QUOTE})",
    )
)
"""Single letters of a short word before a closing quotation mark, so that a model can spell it."""


SPACED_MARKS = ",;:!?.()/|+"
"""Marks with a space after them where case is ignored, as in "door,chair". So has the start of a text:
a word then has the token that it has elsewhere. A small model hardly ever meets the other one."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, max_length: int = 4096, *, ignores_case: bool = False
) -> "PreTrainedTokenizerFast":
    """Return a tokenizer of vocab_size entries, or fewer where the texts have too few pairs to merge.

    One that ignores case normalizes text (Unicode NFKC, lower case, a
    space before every word) and splits quoted words into letters.

    The same texts in the same order give the same tokenizer. Control tokens have the last ids. The texts
    should contain whole conversations (`PromptTemplate.render`), so that the fixed strings take few tokens.

    Raises: SettingError for a vocabulary too small for the bytes and the control tokens.
    """
    from tokenizers import pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    num_learned = vocab_size - len(CONTROL_TOKENS)
    if num_learned < NUM_BYTES:
        raise SettingError("vocab_size", vocab_size, f"at least {NUM_BYTES + len(CONTROL_TOKENS)} entries")
    backend = byte_level_bpe()
    if ignores_case:
        _ignore_case(backend)
    trainer = trainers.BpeTrainer(
        vocab_size=num_learned,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    _add_control_tokens(backend, CONTROL_TOKENS)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        padding_side="right",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template()
    return tokenizer


def byte_level_bpe(
    ids: Mapping[str, int] | None = None,
    merges: Sequence[tuple[str, str]] = (),
    control_tokens: Sequence[str] = (),
) -> "Tokenizer":
    """Return a byte-level BPE with the split of o200k, empty or with a vocabulary and its merges.

    Control tokens that the vocabulary has keep their ids; the others get the next ones.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {} if ids is None else {"vocab": dict(ids), "merges": list(merges)}
    backend = Tokenizer(models.BPE(**vocabulary, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    _add_control_tokens(backend, control_tokens)
    return backend


def _ignore_case(backend: "Tokenizer") -> None:
    """Set a normalizer of case, width and spaces, and a split of quoted words into letters."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            *(normalizers.Replace(mark, f"{mark} ") for mark in SPACED_MARKS),
            normalizers.Prepend(" "),
            normalizers.Replace(Regex(" +"), " "),
        ]
    )
    pattern = f"{QUOTED_LETTERS_PATTERN}|{WORD_PATTERN}"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _add_control_tokens(backend: "Tokenizer", tokens: Sequence[str]) -> None:
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
