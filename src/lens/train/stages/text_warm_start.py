"""Warm start of a denoiser under another text encoder: its first text layer is fitted, not trained.

The old denoiser knows what a name's token means. Ridge regression finds the layer that gives it the same
vectors for the scaffold tokens of the new encoder, which have read the name. All after that layer can stay.
Letters: N tokens, X features of the new encoder (layers times width), D width of the denoiser.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lens.models.checkpoints.text_encoder import load_text_encoder_folder
from lens.models.denoiser import LensTransformer2DModel
from lens.models.prompt_template import PromptTemplate, encode_prompts
from lens.nano.captions import CaptionMix, NanoCaption, nano_caption
from lens.nano.reading import LABELS
from lens.nano.world.colours import COLOUR_SYNONYMS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.phrases import NUMERALS

NUM_CAPTIONS = 3000
FIRST_CAPTION = 2**30
RIDGE = 1e-2
"""Penalty of the regression, as a share of the mean variance of a feature."""
_TASKS_ALONE = CaptionMix(tasks=1.0, dense=0.0)
_TOKENS = {label.name: label.token for label in LABELS}


class NamedToken(NamedTuple):
    """A token of the scaffold, and the words of the caption whose meaning it should have."""

    token: int
    names: Sequence[str]
    """Names of a class or of a background colour."""
    numerals: Sequence[str] = ()
    """Words for a number of objects other than one."""


class LinearFit(NamedTuple):
    """A linear layer, and the share of the targets' variance that it explains."""

    weight: Tensor
    """(D, X)."""
    bias: Tensor
    """(D,)."""
    r2: float


@torch.no_grad()
def fit_text_input(
    denoiser: Any,
    encoder: Any,
    tokenizer: PreTrainedTokenizerFast,
    old_denoiser: Path,
    old_text: Path,
    num_captions: int = NUM_CAPTIONS,
) -> float:
    """Set the first text layer of a denoiser for a new text encoder, and return the R^2 of the fit.

    `old_denoiser` was trained with `old_text`, a folder with `text_encoder` and `tokenizer`. Captions are of
    the six tasks, the only ones that it knows. Targets: at a group's token the old vectors of its name and
    number together, and at the background's token that of the colour.
    """
    captions = [nano_caption(0, FIRST_CAPTION + item, _TASKS_ALONE) for item in range(num_captions)]
    vectors, old_tokenizer = _old_vectors(captions, old_denoiser, old_text)
    layers = denoiser.config.selected_layer_index
    texts = [caption.text for caption in captions]
    features, mask = encode_prompts(encoder, tokenizer, texts, layers, batch_size=32)
    for norm in denoiser.txt_norm:
        norm.weight.fill_(1.0)
    pairs = zip(denoiser.txt_norm, features, strict=True)
    inputs = torch.cat([norm(layer.to(norm.weight)) for norm, layer in pairs], dim=-1).cpu()   # (B, T, X)
    ends = mask.sum(1).tolist()
    num_scaffold_tokens = len(PromptTemplate(tokenizer).scaffold_ids)
    x, y = [], []
    for index, caption in enumerate(captions):
        offsets = _token_offsets(old_tokenizer, caption.text)
        for named in named_tokens(caption):
            if (place := token_of(caption.text, named.names, offsets)) is None:
                continue
            target = vectors[index, place]
            if (number := token_of(caption.text, named.numerals, offsets)) is not None:
                target = target + vectors[index, number]
            x.append(inputs[index, ends[index] - num_scaffold_tokens + named.token])
            y.append(target)
    fit = fit_linear(torch.stack(x), torch.stack(y), RIDGE)
    denoiser.txt_in.weight.copy_(fit.weight)
    denoiser.txt_in.bias.copy_(fit.bias)
    return fit.r2


def fit_linear(x: Tensor, y: Tensor, ridge: float) -> LinearFit:
    """Return the ridge regression of targets on inputs; the bias has no penalty.

    Shapes: (N, X), (N, D) -> (D, X), (D,).
    Units: `ridge` is a share of the mean variance of an input.
    """
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred_x, centred_y = x - x_mean, y - y_mean
    covariance = centred_x.T @ centred_x / len(x)                                          # (X, X)
    penalty = ridge * covariance.diagonal().mean() * torch.eye(len(covariance))
    weight = torch.linalg.solve(covariance + penalty, centred_x.T @ centred_y / len(x)).T  # (D, X)
    rest = centred_y - centred_x @ weight.T                                                # (N, D)
    r2 = 1 - rest.square().sum() / centred_y.square().sum()
    return LinearFit(weight, y_mean - weight @ x_mean, float(r2))


def named_tokens(caption: NanoCaption) -> list[NamedToken]:
    """Return the tokens of the scaffold that tell the background and the groups, with the words for them."""
    named = []
    if (background := caption.spec.background) is not None:
        named.append(NamedToken(_TOKENS["background"], (background, *COLOUR_SYNONYMS.get(background, ()))))
    for index, group in enumerate(caption.spec.groups):
        thing = OBJECT_CLASSES[group.class_name]
        names = [form for pair in ((thing.name, thing.plural), *thing.synonyms) for form in pair]
        count = group.count or 1
        numerals = (NUMERALS[count], str(count)) if count > 1 else ()
        named.append(NamedToken(_TOKENS[f"class_{index}"], names, numerals))
    return named


def token_of(text: str, words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> int | None:
    """Return the token that ends the longest of some words that a text has, or None without one.

    `offsets` are the first character of each token and the one after its last.
    """
    for word in sorted(words, key=len, reverse=True):
        if found := re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
            ends = (index for index, (start, end) in enumerate(offsets) if start < found.end() <= end)
            return next(ends, None)
    return None


def _old_vectors(
    captions: Sequence[NanoCaption], old_denoiser: Path, old_text: Path
) -> tuple[Tensor, PreTrainedTokenizerFast]:
    """Return what the old denoiser makes of the captions' tokens, (B, T, D), and the tokenizer of these."""
    denoiser: Any = LensTransformer2DModel.from_pretrained(old_denoiser).float()
    encoder = load_text_encoder_folder(old_text / "text_encoder", torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(old_text / "tokenizer")
    layers = denoiser.config.selected_layer_index
    texts = [caption.text for caption in captions]
    features, _ = encode_prompts(encoder, tokenizer, texts, layers, batch_size=32)
    return denoiser._embed_text([layer.float() for layer in features], torch.float32), tokenizer


def _token_offsets(tokenizer: PreTrainedTokenizerFast, text: str) -> list[tuple[int, int]]:
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
