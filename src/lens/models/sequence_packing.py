"""Pictures of any sizes as one packed sequence: which token belongs to which picture.

Knows nothing of weights. Spec: section 8 (mixed resolutions). Letters: P pictures, I and T all their image
and text tokens, N = I + T.
Order: packed streams hold all image tokens, picture by picture, then all text tokens, picture by picture;
inside attention the tokens of a picture stand together, image before text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class PackedSequence:
    """Which token of a packed sequence belongs to which picture.

    Not frozen, though never changed: of a frozen one torch.compile reads every field, and so would compile
    blocks anew for every number of pictures. Blocks on a GPU read tensors and the longest lengths alone.
    """

    image_lengths: tuple[int, ...]
    text_lengths: tuple[int, ...]
    image_sequence_ids: Tensor
    """(I,) picture of each image token."""
    text_sequence_ids: Tensor
    """(T,) picture of each text token."""
    joint_index: Tensor
    """(N,) place in the streams of each token, once those of a picture stand together."""
    stream_index: Tensor
    """(N,) the way back: place of each token of the streams among those that stand together."""
    image_cu_seqlens: Tensor
    """(P + 1,) int32, where the image tokens of each picture end, from 0."""
    cu_seqlens: Tensor
    """(P + 1,) int32, where all tokens of each picture end."""
    image_max_seqlen: int
    """Image tokens of the picture that has most."""
    max_seqlen: int
    """All tokens of the picture that has most."""

    @classmethod
    def of(
        cls, image_lengths: Sequence[int], text_lengths: Sequence[int], device: torch.device
    ) -> "PackedSequence":
        """Return the packing of pictures with so many image and text tokens each."""
        image_sequence_ids, text_sequence_ids = (
            torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            for lengths in (image_lengths, text_lengths)
        )
        # A stable sort by picture keeps image before text, and each in its order.
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
        """Return the tokens of each picture."""
        return tuple(
            image + text for image, text in zip(self.image_lengths, self.text_lengths, strict=True)
        )

    @property
    def num_image_tokens(self) -> int:
        return sum(self.image_lengths)


def broadcast_modulation(modulation: Tensor, sequence_ids: Tensor | None) -> Tensor:
    """Return what each token is modulated with: its picture's, or in a batch its sample's.

    Shapes: modulation (P, M), picture_of (N,) -> (1, N, M); without picture_of (B, M) -> (B, 1, M).
    """
    return (
        modulation[:, None] if sequence_ids is None else _BroadcastRows.apply(modulation, sequence_ids)[None]
    )


def permute_tokens(x: Tensor, index: Tensor, inverse_index: Tensor) -> Tensor:
    """Return tokens in another order; `back` is the order that undoes it.

    Shapes: x (1, N, ...), order and back (N,) -> (1, N, ...).
    """
    return _PermuteTokens.apply(x, index, inverse_index)


class _BroadcastRows(torch.autograd.Function):
    """Rows to tokens; on the way back a product sums what reached a row.

    Indexing would sum by atomic additions, thousands onto each row, in bfloat16 where that is its dtype.
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
    """A change of order, whose way back is one too: that of indexing adds to zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse_index: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_index)
        return x[:, index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse_index,), (grad,) = ctx.saved_tensors, grads
        return grad[:, inverse_index], None, None
