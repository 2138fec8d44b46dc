"""Sequence packing: images of any sizes as one sequence, and the order of its tokens.

Knows nothing of weights. Spec: section 8 (mixed resolutions). Letters: P images, I and T all their image and
text tokens, N = I + T.
Order: the streams hold all image tokens, image by image, then all text tokens, image by image. In the joint
order, that of attention, the tokens of an image are together, image tokens before text tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class PackedSequence:
    """The image of each token of a packed sequence, and the lengths of all images.

    Never changed, but not frozen: torch.compile reads every field of a frozen dataclass, and so would
    recompile blocks for every number of images. On a GPU blocks read only the tensors and longest lengths.
    """

    image_lengths: tuple[int, ...]
    text_lengths: tuple[int, ...]
    image_sequence_ids: Tensor
    """(I,) image of each image token."""
    text_sequence_ids: Tensor
    """(T,) image of each text token."""
    joint_index: Tensor
    """(N,) index in the streams of each token of the joint order."""
    stream_index: Tensor
    """(N,) index in the joint order of each token of the streams."""
    image_cu_seqlens: Tensor
    """(P + 1,) int32, 0 and where the image tokens of each image end."""
    cu_seqlens: Tensor
    """(P + 1,) int32, 0 and where all tokens of each image end."""
    image_max_seqlen: int
    """Image tokens of the image with the most."""
    max_seqlen: int
    """All tokens of the image with the most."""

    @classmethod
    def of(
        cls, image_lengths: Sequence[int], text_lengths: Sequence[int], device: torch.device
    ) -> "PackedSequence":
        """Return the packing of images with these numbers of image and text tokens."""
        image_sequence_ids, text_sequence_ids = (
            torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            for lengths in (image_lengths, text_lengths)
        )
        # A stable sort by image keeps image tokens before text tokens, and each in its order.
        joint_index = torch.cat([image_sequence_ids, text_sequence_ids]).argsort(stable=True)           # (N,)
        lengths = [image + text for image, text in zip(image_lengths, text_lengths, strict=True)]
        cu_seqlens = (
            torch.tensor([0, *accumulate(each)], dtype=torch.int32) for each in (image_lengths, lengths)
        )
        tensors = [image_sequence_ids, text_sequence_ids, joint_index, joint_index.argsort(), *cu_seqlens]
        image_sequence_ids, text_sequence_ids, joint_index, stream_index, image_cu_seqlens, cu_seqlens = (
            tensor.to(device, non_blocking=True) for tensor in tensors
        )
        return cls(
            tuple(image_lengths),
            tuple(text_lengths),
            image_sequence_ids,
            text_sequence_ids,
            joint_index,
            stream_index,
            image_cu_seqlens,
            cu_seqlens,
            image_max_seqlen=max(image_lengths),
            max_seqlen=max(lengths),
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return the number of tokens of each image."""
        return tuple(
            image + text for image, text in zip(self.image_lengths, self.text_lengths, strict=True)
        )

    @property
    def num_image_tokens(self) -> int:
        return sum(self.image_lengths)


def broadcast_modulation(modulation: Tensor, sequence_ids: Tensor | None) -> Tensor:
    """Return the modulation of each token: that of its image, or in a batch that of its sample.

    Shapes: modulation (P, M), sequence_ids (N,) -> (1, N, M); without sequence_ids (B, M) -> (B, 1, M).
    """
    return (
        modulation[:, None] if sequence_ids is None else _BroadcastRows.apply(modulation, sequence_ids)[None]
    )


def permute_tokens(x: Tensor, index: Tensor, inverse_index: Tensor) -> Tensor:
    """Return tokens in another order; `inverse_index` is the permutation that undoes it.

    Shapes: x (1, N, ...), index and inverse_index (N,) -> (1, N, ...).
    """
    return _PermuteTokens.apply(x, index, inverse_index)


class _BroadcastRows(torch.autograd.Function):
    """Repeats rows for tokens; the backward pass sums the gradients of a row by a matrix product.

    The backward pass of indexing sums by atomic additions, thousands for each row, also in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, row_of: Tensor) -> Tensor:
        ctx.save_for_backward(row_of)
        ctx.num_rows = rows.shape[0]
        return rows[row_of]                                                                # (N, M)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (row_of,), (grad,) = ctx.saved_tensors, grads
        numbers = torch.arange(ctx.num_rows, device=grad.device)
        return (numbers[:, None] == row_of).to(grad.dtype) @ grad, None                    # (P, M)


class _PermuteTokens(torch.autograd.Function):
    """A permutation, whose backward pass is a permutation too, where that of indexing adds to zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_index)
        return x[:, index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse_index,), (grad,) = ctx.saved_tensors, grads
        return grad[:, inverse_index], None, None
