"""Noise, and a generator for each (seed, purpose, step, item): alike in any batch and on any device.

Draws happen on the CPU unless a generator lives elsewhere, so a seed gives one image on every device.
Knows nothing of models or of what the draws are for. Free of torch until it draws.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lens.errors import SettingError

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

MAX_SEED = 2**53 - 1
"""Largest seed of an image: browsers and many readers of JSON hold no larger whole number exactly."""
RANDOM_SEED = -1
"""Asks for a random seed, as in other programs."""
RANDOM_SEED_NAME = "random"
NUM_RANDOM_SEEDS = 2**32
_MAX_GENERATOR_SEED = 2**63 - 1


def random_seed() -> int:
    """Return the seed of a request that states none."""
    return secrets.randbelow(NUM_RANDOM_SEEDS)


def parse_seed(text: str | int, setting: str = "seed") -> int:
    """Return a seed, or RANDOM_SEED for `random` and -1.

    Raises: SettingError for anything else than a whole number up to MAX_SEED.
    """
    words = str(text).strip().lower()
    seed = RANDOM_SEED if words == RANDOM_SEED_NAME else None
    if seed is None and words.removeprefix("-").isdecimal() and words.isascii():
        seed = int(words) if len(words) < 20 else MAX_SEED + 1
    if seed is None or not RANDOM_SEED <= seed <= MAX_SEED:
        raise SettingError(setting, text, f"a whole number from 0 to {MAX_SEED}, or random", "-1 is random.")
    return seed


def seed_of_image(first_seed: int, index: int) -> int:
    """Return the seed of one of several images: they count up, and 0 follows the largest."""
    return (first_seed + index) % (MAX_SEED + 1)


def generator_for(seed: int, purpose: str, step: int = 0, item: int = 0) -> "Generator":
    """Return a CPU generator of its own for one draw: the same four values give the same numbers anywhere."""
    from torch import Generator

    name = f"{int(seed)}/{purpose}/{int(step)}/{int(item)}".encode()
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return Generator("cpu").manual_seed(int.from_bytes(digest, "little") & _MAX_GENERATOR_SEED)


def draw_noise(
    shape: Sequence[int],
    generators: "Generator | Sequence[Generator] | None" = None,
    dtype: "torch.dtype | None" = None,
    device: "torch.device | str" = "cpu",
) -> "Tensor":
    """Return standard normal noise; with a list, each sample is drawn from its own generator.

    It is drawn in float32 on the generator's device (the CPU for None) and then converted, so that dtype
    (float32 for None) and device change no draw.

    Shapes: -> shape, whose first axis is the batch.
    Raises: SettingError when the list does not hold one generator per sample.
    """
    import torch

    if not isinstance(generators, Sequence):
        where = "cpu" if generators is None else generators.device
        return torch.randn(tuple(shape), generator=generators, device=where).to(device, dtype)
    if len(generators) != shape[0]:
        needs = f"one generator for each of {shape[0]} images"
        raise SettingError("generator", f"a list of {len(generators)}", needs)
    each = [torch.randn(tuple(shape[1:]), generator=own, device=own.device) for own in generators]
    return torch.stack([noise.to(device, dtype) for noise in each])
