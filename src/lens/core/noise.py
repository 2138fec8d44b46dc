"""Generators made for (seed, purpose, step, item), and noise that does not depend on its batch or its device.

Draws happen on the CPU unless a generator lives elsewhere: a seed then gives one picture on every device.
Knows nothing of models or of what the draws are for.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from lens.errors import SettingError


def generator_for(seed: int, purpose: str, step: int = 0, item: int = 0) -> Generator:
    """Return a CPU generator of its own for one draw: the same four values give the same numbers anywhere."""
    name = f"{int(seed)}/{purpose}/{int(step)}/{int(item)}".encode()
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return Generator("cpu").manual_seed(int.from_bytes(digest, "little") & (2**63 - 1))


def draw_noise(
    shape: Sequence[int],
    generators: Generator | Sequence[Generator] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return standard normal noise; with a list, each sample is drawn from its own generator.

    Drawn in float32 on the generator's device (the CPU for None), then moved: dtype and device alter nothing.

    Shapes: -> shape, whose first axis is the batch.
    Raises: SettingError when the list does not hold one generator per sample.
    """
    if not isinstance(generators, Sequence):
        where = "cpu" if generators is None else generators.device
        return torch.randn(tuple(shape), generator=generators, device=where).to(device, dtype)
    if len(generators) != shape[0]:
        needs = f"one generator for each of {shape[0]} images"
        raise SettingError("generator", f"a list of {len(generators)}", needs)
    each = [torch.randn(tuple(shape[1:]), generator=own, device=own.device) for own in generators]
    return torch.stack([noise.to(device, dtype) for noise in each])
