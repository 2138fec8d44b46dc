"""Streaming of mapped blocks: a block's weights are read ahead while the one before it runs, then released.

A model of any size then takes the memory of about two of its blocks. Values are those of resident weights, to
the bit. Knows nothing of what the blocks compute.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lens.models.mapped_memory import prefetch, release


def stream_blocks(blocks: Sequence[nn.Module]) -> list[Any]:
    """Stream blocks that run in this order, again and again; return the handles that end it by `remove()`.

    Only weights that are views of files are released. They must not be written to, as changes would be lost.
    """
    handles: list[Any] = []
    for index, block in enumerate(blocks):
        following = blocks[(index + 1) % len(blocks)]

        def before(_: nn.Module, __: Any, following: nn.Module = following) -> None:
            prefetch(following)

        def after(module: nn.Module, _: Any, __: Any) -> None:
            release(module)

        handles.append(block.register_forward_pre_hook(before))
        handles.append(block.register_forward_hook(after, always_call=True))
    return handles
