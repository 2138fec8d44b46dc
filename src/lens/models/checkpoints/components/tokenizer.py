"""Tokenizers of a model: a folder, a tokenizer.json, or inside a text encoder's file (NVFP4 or GGUF).

A GGUF file has a vocabulary and merges, from which the tokenizer is built with the split of o200k.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import CheckpointError
from lens.models.checkpoints.detect import TOKENIZER_KEY
from lens.models.checkpoints.diffusers_folder import resolve_component_folder
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX, read_gguf_header
from lens.models.checkpoints.reader import open_safetensors, validate_file
from lens.models.tokenizer import BOS_TOKEN, EOS_TOKEN, PAD_TOKEN, byte_level_bpe

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

GGUF_BYTE_LEVEL, GGUF_SPLITS = "gpt2", ("gpt-4o",)
"""The kind of tokenizer and the names of the split, as llama.cpp writes them for GPT-OSS."""
_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens in a GGUF file that are never split."""


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """Return the tokenizer of a folder, a tokenizer.json file or a text encoder's file.

    Raises: CheckpointError for a path without a tokenizer that can be read.
    """
    from transformers import PreTrainedTokenizerFast

    if path.is_dir():
        return PreTrainedTokenizerFast.from_pretrained(resolve_component_folder(path, "tokenizer"))
    backend = load_tokenizer_backend(path)
    special = {"bos_token": BOS_TOKEN, "eos_token": EOS_TOKEN, "pad_token": PAD_TOKEN}
    known = {role: token for role, token in special.items() if backend.token_to_id(token) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="right", clean_up_tokenization_spaces=False, **known
    )


def load_tokenizer_backend(path: Path) -> "Tokenizer":
    """Return the tokenizer of a path as the `tokenizers` library's own class, without torch but for NVFP4."""
    from tokenizers import Tokenizer

    if path.is_dir():
        path = resolve_component_folder(path, "tokenizer") / "tokenizer.json"
    validate_file(path)
    if path.suffix.lower() == GGUF_SUFFIX:
        return _from_gguf(path)
    text = _stored_json(path) if path.suffix.lower() == ".safetensors" else path.read_bytes()
    try:
        return Tokenizer.from_buffer(text)
    except Exception as error:  # the library raises nothing more particular
        raise CheckpointError(f"{path} has no tokenizer that can be read: {error}.") from error


def _stored_json(path: Path) -> bytes:
    tensors = open_safetensors(path).tensors
    if TOKENIZER_KEY not in tensors:
        raise CheckpointError(
            f"{path} has no tokenizer inside (no {TOKENIZER_KEY}). Name one with --tokenizer (tokenizer= in "
            "Python): a folder, a tokenizer.json, or a text encoder's file that has one."
        )
    return tensors[TOKENIZER_KEY].read().numpy().tobytes()


def _from_gguf(path: Path) -> "Tokenizer":
    names = ("tokens", "merges", "token_type")
    settings = read_gguf_header(path, arrays=[f"tokenizer.ggml.{name}" for name in names]).settings
    tokens, merges, types = (settings.get(f"tokenizer.ggml.{name}") for name in names)
    kind, split = (settings.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    remedy = "Name another with --tokenizer (tokenizer= in Python)."
    if not tokens or not merges:
        raise CheckpointError(f"{path} has no tokenizer inside. {remedy}")
    if kind != GGUF_BYTE_LEVEL or split not in GGUF_SPLITS:
        raise CheckpointError(
            f"{path} has a tokenizer of the kind {kind!r} with the split {split!r}, but GPT-OSS has "
            f"{GGUF_BYTE_LEVEL!r} with {GGUF_SPLITS[0]!r}. {remedy}"
        )
    ids = {token: number for number, token in enumerate(tokens)}
    pairs: list[Any] = [tuple(merge.split(" ", 1)) for merge in merges]
    control = [
        token for token, kind in zip(tokens, types or (), strict=False) if kind in (_CONTROL, _USER_DEFINED)
    ]
    try:
        return byte_level_bpe(ids, pairs, control)
    except Exception as error:  # the library raises nothing more particular
        raise CheckpointError(f"{path} has a tokenizer that is damaged: {error}. {remedy}") from error
