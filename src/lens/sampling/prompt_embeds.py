"""Prompt embeds: the text features of a batch of prompts, with rows selected, repeated or empty.

Knows nothing of tokenizers or denoisers. Letters: B rows, T text tokens, E text feature width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lens.errors import SettingError, ShapeError


class PromptEmbeds(NamedTuple):
    """Text features that condition the denoiser."""

    features: list[Tensor]
    """One (B, T, E) per captured layer."""
    mask: Tensor
    """(B, T) bool, True for real tokens."""

    def rows(self, indices: Sequence[int | None]) -> "PromptEmbeds":
        """Return these rows in this order; None is a row without text: zeros, and a mask all False."""
        device = self.mask.device
        picked = torch.tensor([index or 0 for index in indices], device=device)  # (B,)
        is_text = torch.tensor([index is not None for index in indices], device=device)  # (B,)
        features = [one[picked].masked_fill(~is_text[:, None, None], 0) for one in self.features]
        return PromptEmbeds(features, self.mask[picked] & is_text[:, None])

    def repeat(self, num_repeats: int) -> "PromptEmbeds":
        """Return each row several times, one after the other: the images of a prompt are consecutive."""
        return self.rows([row for row in range(len(self.mask)) for _ in range(num_repeats)])

    def to(self, device: torch.device | str) -> "PromptEmbeds":
        return PromptEmbeds([one.to(device) for one in self.features], self.mask.to(device))


def make_prompt_embeds(
    features: Sequence[Tensor] | None, mask: Tensor | None, setting: str
) -> PromptEmbeds | None:
    """Return passed features as prompt embeds; None for none.

    Without a mask, tokens whose features are all zero are padding: `encode_prompt` pads with zeros, and no
    real token has them.
    Raises: SettingError or ShapeError that names what does not fit.
    """
    if features is None:
        if mask is not None:
            name = setting.replace("embeds", "mask")
            raise SettingError(name, "a tensor", f"the {setting} that it masks", f"Pass {setting}= too.")
        return None
    layers = list(features) if isinstance(features, (list, tuple)) else []
    if not layers or not all(isinstance(one, Tensor) and one.ndim == 3 for one in layers):
        got = type(features).__name__
        raise SettingError(setting, got, "a list of (batch, tokens, width) tensors, one per captured layer")
    shape = layers[0].shape[:2]
    if any(one.shape[:2] != shape for one in layers):
        got = ", ".join(str(tuple(one.shape)) for one in layers)
        raise ShapeError(f"The layers of {setting} are {got}, but they need one batch and length.")
    if mask is None:
        mask = torch.stack([one.ne(0).any(dim=-1) for one in layers]).any(dim=0)
    if not isinstance(mask, Tensor):
        raise SettingError(f"the mask of {setting}", type(mask).__name__, "a tensor of booleans")
    if mask.shape != shape:
        raise ShapeError(f"The mask of {setting} is {tuple(mask.shape)}, but it needs {tuple(shape)}.")
    return PromptEmbeds(layers, mask.bool())
