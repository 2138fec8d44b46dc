"""Warm start of a denoiser under another text encoder: its first text layer is fitted instead of trained.

The old denoiser knows what a name's token means. Ridge regression finds the layer that gives it the same vectors for
the scaffold tokens of the new encoder, which have read the name. Everything after that layer can stay.
Letters: N tokens, X features of the new encoder (layers times width), D width of the denoiser.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.models.checkpoints.text_encoder import load_text_encoder_folder
from lens.models.denoiser import LensTransformer2DModel
from lens.models.prompt_template import encode_prompts
from lens.nano.captions import CaptionMix, NanoCaption, nano_caption
from lens.nano.world.colours import COLOUR_SYNONYMS
from lens.nano.world.objects import OBJECT_CLASSES

NUM_CAPTIONS = 3000
RIDGE = 1e-2
"""Penalty of the regression, as a share of the mean variance of a feature."""
NUMERALS = ("no", "one", "two", "three", "four", "five")
_TASKS_ALONE = CaptionMix(tasks=1.0, dense=0.0)


@torch.no_grad()
def fit_text_input(
    denoiser: LensTransformer2DModel, encoder: Any, tokenizer: Any, old_denoiser: Path, old_text: Path
) -> float:
    """Set `txt_in` of a denoiser for a new text encoder from the old denoiser and encoder; return the R^2 of the fit.

    Targets: at a group's token the old vectors of its name and its number together, at the background's token that of
    the colour. Captions are those of the six tasks, the only ones that the old denoiser knows.
    """
    from transformers import PreTrainedTokenizerFast

    old: Any = LensTransformer2DModel.from_pretrained(old_denoiser).float()
    old_encoder: Any = load_text_encoder_folder(old_text / "text_encoder", torch.float32)
    old_tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(old_text / "tokenizer")
    captions = [nano_caption(0, 2**30 + item, _TASKS_ALONE) for item in range(NUM_CAPTIONS)]
    texts = [caption.text for caption in captions]
    new_features, new_mask = encode_prompts(
        encoder, tokenizer, texts, denoiser.config.selected_layer_index, batch_size=32
    )
    old_features, _ = encode_prompts(old_encoder, old_tokenizer, texts, old.config.selected_layer_index, batch_size=32)
    inputs = torch.cat([_rms_norm(layer.float()) for layer in new_features], dim=-1)             # (B, T, X)
    embedded = old._embed_text([layer.float() for layer in old_features], torch.float32)         # (B, T, D)
    from lens.models.prompt_template import PromptTemplate

    num_scaffold = len(PromptTemplate(tokenizer).scaffold_ids)
    rows, targets = [], []
    for index, caption in enumerate(captions):
        offsets = old_tokenizer(caption.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        start = int(new_mask[index].sum()) - num_scaffold
        for token, words in _named_words(caption):
            if (place := _last_token(caption.text, words[0], offsets)) is None:
                continue
            target = embedded[index, place]
            if len(words) > 1 and (number := _last_token(caption.text, words[1:], offsets)) is not None:
                target = target + embedded[index, number]
            rows.append(inputs[index, start + token])
            targets.append(target)
    x, y = torch.stack(rows), torch.stack(targets)                                               # (N, X), (N, D)
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    gram = centred.T @ centred / len(x)
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, centred.T @ (y - y_mean) / len(x)).T                      # (D, X)
    for norm in denoiser.txt_norm:
        norm.weight.fill_(1.0)
    denoiser.txt_in.weight.copy_(weight)
    denoiser.txt_in.bias.copy_(y_mean - weight @ x_mean)
    rest = y - y_mean - centred @ weight.T
    return float(1 - rest.square().sum() / (y - y_mean).square().sum())


def _named_words(caption: NanoCaption) -> list[tuple[int, list[Sequence[str]]]]:
    """Return scaffold tokens, with the words that name a class and its number, or a colour."""
    named: list[tuple[int, list[Sequence[str]]]] = []
    if (background := caption.spec.background) is not None:
        named.append((0, [(background, *COLOUR_SYNONYMS.get(background, ()))]))
    for index, group in enumerate(caption.spec.groups):
        thing = OBJECT_CLASSES[group.class_name]
        forms = [form for pair in ((thing.name, thing.plural), *thing.synonyms) for form in pair]
        words: list[Sequence[str]] = [forms]
        if group.count and group.count > 1:
            words.append((NUMERALS[group.count], str(group.count)))
        named.append((1 + index, words))
    return named


def _last_token(text: str, words: Any, offsets: Sequence[tuple[int, int]]) -> int | None:
    """Return the last token of the first of some words that a text has."""
    words = words[0] if not isinstance(words[0], str) else words
    for word in sorted(words, key=len, reverse=True):
        if found := re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
            ends = [index for index, (start, end) in enumerate(offsets) if start < found.end() <= end]
            return ends[0] if ends else None
    return None


def _rms_norm(features: Tensor) -> Tensor:
    return features * features.square().mean(-1, keepdim=True).add(1e-5).rsqrt()
