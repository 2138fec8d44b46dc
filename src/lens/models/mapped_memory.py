"""Memory maps of weight files: tensors that are views of a file, read ahead and released by their address.

Pages of a map come from the page cache when they are first used, so that opening a file of any size takes no
memory. A released page leaves the process, stays in the page cache, and comes back when it is used again.
Knows nothing of file formats.
"""

import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

READ_AHEAD_BYTES = 128 * 2**10
"""Bytes of one request to read ahead; the kernel cuts off what is longer than the disk's own limit."""

# Without it the kernel refuses to map a file that is larger than its memory, as the copy could grow as large.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class MappedFile(mmap.mmap):
    """A map of a whole file. Writes to its tensors stay in the process and never reach the file."""

    address: int
    descriptor: int

    def __new__(cls, path: Path) -> "MappedFile":
        descriptor = os.open(path, os.O_RDONLY)
        if hasattr(mmap, "MAP_PRIVATE"):
            flags, protection = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            self = super().__new__(cls, descriptor, 0, flags=flags, prot=protection)
        else:
            self = super().__new__(cls, descriptor, 0, access=mmap.ACCESS_COPY)
        weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        self.address = torch.frombuffer(self, dtype=torch.uint8, count=1).data_ptr()
        _maps[self.address] = self
        return self

    def tensor(self, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return the tensor at an offset in bytes; it is a view of the file, and keeps the map open."""
        count = 1
        for side in shape:
            count *= side
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        if offset % dtype.itemsize:
            data = torch.frombuffer(self, dtype=torch.uint8, offset=offset, count=count * dtype.itemsize)
            return data.clone().view(dtype).reshape(shape)
        return torch.frombuffer(self, dtype=dtype, offset=offset, count=count).reshape(shape)


_maps: "weakref.WeakValueDictionary[int, MappedFile]" = weakref.WeakValueDictionary()
"""Every open map by its address."""


class _Span(NamedTuple):
    """A range of a mapped file in bytes."""

    file: MappedFile
    start: int
    stop: int


def release(*sources: nn.Module | Tensor) -> None:
    """Drop the mapped pages of tensors, or of the weights of modules, from the memory of this process.

    Values that were written to them are lost, so only weights that are never written may be released.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    for file, start, stop in _spans(sources):
        page = mmap.PAGESIZE  # pages that are only partly of the tensor stay
        first, last = -(-start // page) * page, stop // page * page
        if last > first:
            file.madvise(mmap.MADV_DONTNEED, first, last - first)


def prefetch(*sources: nn.Module | Tensor) -> None:
    """Ask the kernel to read the mapped pages of tensors, or of the weights of modules, in the background."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file, start, stop in _spans(sources):
        for offset in range(start, stop, READ_AHEAD_BYTES):
            length = min(READ_AHEAD_BYTES, stop - offset)
            os.posix_fadvise(file.descriptor, offset, length, os.POSIX_FADV_WILLNEED)


def is_mapped(tensor: Tensor) -> bool:
    """Return whether a tensor is a view of a mapped file."""
    return next(_spans([tensor]), None) is not None


def _spans(sources: Iterable[nn.Module | Tensor]) -> Iterator[_Span]:
    maps = sorted(_maps.items())
    for tensor in chain.from_iterable(_tensors(source) for source in sources):
        if tensor.device.type != "cpu" or not tensor.numel():
            continue
        address = tensor.data_ptr()
        for start, file in maps:
            if start <= address < start + len(file):
                offset = address - start
                yield _Span(file, offset, offset + tensor.numel() * tensor.element_size())
                break


def _tensors(source: nn.Module | Tensor) -> Iterable[Tensor]:
    if isinstance(source, Tensor):
        return [source]
    tensors: Any = chain(source.parameters(), source.buffers())
    return tensors
