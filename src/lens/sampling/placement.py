"""Placement of a pipeline on a GPU, by the rungs of the memory ladder.

`resident` keeps everything on the GPU. `parts` moves one component at a time there. `streamed` holds two
blocks of the denoiser there, and encodes in main memory; `tiled` decodes in tiles too. Spec: section 14.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lens.models.hidden_states import HiddenStateExtractor
from lens.models.memory import available_memory
from lens.sampling.memory_ladder import LOW_MEMORY_TILE_PX, RungName

PINNED_SHARE = 0.5
"""Share of the free main memory that pinned weights may take: no other program can use that memory."""


def place(pipeline: Any, device: torch.device | str, rung: RungName) -> None:
    """Put a pipeline in main memory onto a device in the way of a rung; its images stay the same.

    Load adapters and quantize before.
    """
    device = torch.device(device)
    if rung == "resident":
        pipeline.to(device)
    elif rung == "parts":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        if isinstance(pipeline.text_encoder, HiddenStateExtractor):
            pipeline.text_encoder.releases_blocks = True
        pipeline.vae.to(device)
        if rung == "tiled":
            pipeline.enable_vae_tiling(LOW_MEMORY_TILE_PX)
        stream_denoiser(pipeline.transformer, device)


def stream_denoiser(denoiser: Any, device: torch.device) -> "DeviceStream":
    """Run a denoiser on a device that holds two of its blocks; return the stream."""
    blocks = denoiser.transformer_blocks
    for name, part in denoiser.named_children():
        if name != "transformer_blocks":
            part.to(device)
    size = sum(tensor.nbytes for _, _, tensor in _slots(blocks))
    if device.type == "cuda" and size < PINNED_SHARE * available_memory("cpu"):
        _pin_weights(blocks)
    return DeviceStream(blocks, device)


class DeviceStream:
    """Blocks that run in this order, again and again, on a device that holds two of them.

    While a block runs, the weights of the next one are copied. diffusers' group offload does the same for
    parameters, but with a CUDA stream it never frees buffers, and packed weights are buffers (0.42).
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device):
        """Take over blocks in main memory; `remove` gives them back."""
        self._blocks, self._device = list(blocks), device
        self._homes: dict[int, list[Slot]] = {}
        """By the index of a block on the device: its tensors in main memory."""
        self._is_cuda = device.type == "cuda"
        self._copy_stream: Any = torch.cuda.Stream(device) if self._is_cuda else None
        self._copied: dict[int, Any] = {}
        self._running: tuple[list[Slot], Any] = [], None
        """Tensors on the device of the block that was started last, and the event of its end."""
        self._handles: list[Any] = []
        for index, block in enumerate(self._blocks):
            before, after = self._hooks(index)
            self._handles.append(block.register_forward_pre_hook(before))
            self._handles.append(block.register_forward_hook(after, always_call=True))

    def remove(self) -> None:
        """End the streaming; all blocks are in main memory."""
        for handle in self._handles:
            handle.remove()
        if self._is_cuda:
            torch.cuda.synchronize(self._device)
        for index in list(self._homes):
            self._send_home(index)

    def _hooks(self, index: int) -> tuple[Any, Any]:
        def before(_: nn.Module, __: Any) -> None:
            self._fetch(index)
            if self._is_cuda:
                torch.cuda.current_stream(self._device).wait_event(self._copied[index])

        def after(_: nn.Module, __: Any, ___: Any) -> None:
            on_device = self._send_home(index)
            if self._is_cuda:
                # The host runs ahead of the device. Here the block before this one ends, and its memory can
                # be used again; this one is still at work, while the next one is copied.
                ended = self._running[1]
                if ended is not None:
                    ended.synchronize()
                self._running = on_device, torch.cuda.current_stream(self._device).record_event()
            self._fetch((index + 1) % len(self._blocks))

        return before, after

    def _fetch(self, index: int) -> None:
        """Start to copy a block to the device, unless it is there."""
        if index in self._homes:
            return
        homes = self._homes[index] = list(_slots(self._blocks[index]))
        with torch.cuda.stream(self._copy_stream):  # does nothing without a stream
            for table, name, home in homes:
                _fill(table, name, home, home.detach().to(self._device, non_blocking=True))
            if self._is_cuda:
                self._copied[index] = self._copy_stream.record_event()

    def _send_home(self, index: int) -> list["Slot"]:
        """Put a block's tensors in main memory back into it, and return those of the device."""
        homes = self._homes.pop(index, [])
        on_device = [(table, name, table[name]) for table, name, _ in homes]
        for table, name, home in homes:
            table[name] = home
        return on_device


Slot = tuple[dict[str, Any], str, Tensor]
"""The place of a tensor in its module: a table of parameters or buffers, its name there, and the tensor."""


def _slots(block: nn.Module) -> Iterator[Slot]:
    for module in block.modules():
        for table in (module._parameters, module._buffers):
            yield from ((table, name, tensor) for name, tensor in table.items() if tensor is not None)


def _fill(table: dict[str, Any], name: str, old: Tensor, new: Tensor) -> None:
    table[name] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _pin_weights(blocks: nn.Module) -> None:
    """Move weights to pages that a GPU copies from directly; those of torchao cannot be moved."""
    for table, name, tensor in list(_slots(blocks)):
        if type(tensor.data) is Tensor:
            _fill(table, name, tensor, tensor.detach().pin_memory())
