"""DiffusionNFT: pull the velocity toward pictures that were judged good, push it from those judged bad.

Paper: DiffusionNFT (arXiv 2509.16117). Spec: section 9. Letters: G groups, K pictures of a group, B pictures,
C channels, h and w latent cells.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lens.core.flow import predict_x0

DecaySchedule = Literal["grown", "zero", "late"]


class NftTerms(NamedTuple):
    """What the loss is made of, one value a picture, (B,)."""

    policy: Tensor
    kl: Tensor
    """Squared distance of the velocity to the reference's."""
    drift: Tensor
    """The same to the sampling policy's; for the log."""


def advantages(raw: Tensor, clip: float = 5.0) -> Tensor:
    """Return how much better each picture is than its group, over the spread of all; missing ones are 0.

    Shapes: raw (G, K), NaN where a score is missing -> (G, K) in [-clip, clip].
    """
    is_there = raw.isfinite()
    means = raw.nanmean(dim=1, keepdim=True)                                                    # (G, 1)
    spread = raw[is_there].std(correction=0) if is_there.any() else raw.new_zeros(())
    normalized = (raw - means) / (spread + 1e-4)
    return normalized.nan_to_num(0.0).clamp(-clip, clip)


def optimality(advantage: Tensor, width: float = 10.0) -> Tensor:
    """Return the probability, in [0, 1], that a picture of this advantage is a good one: 1/2 at none."""
    return (advantage / width + 0.5).clamp(0, 1)


def has_equal_rewards(raw: Tensor) -> Tensor:
    """Return of each group whether its pictures were all judged alike, and so teach nothing.

    Shapes: raw (G, K), NaN where a score is missing -> (G,).
    """
    lowest = raw.nan_to_num(torch.inf).amin(dim=1)
    highest = raw.nan_to_num(-torch.inf).amax(dim=1)
    return highest - lowest <= 1e-6


def nft_terms(
    new: Tensor, old: Tensor, reference: Tensor | None, noisy: Tensor, clean: Tensor, *,
    t: Tensor, optimal: Tensor, nft_beta: float,
) -> NftTerms:  # fmt: skip
    """Return the terms of the loss of velocities at noisy points on the way to pictures that were judged.

    Both policies made of the new and the old one are compared in clean space, each error over its own mean
    size, so that all times weigh alike.

    Shapes: velocities, noisy and clean (B, C, h, w); t and optimal (B,) -> (B,).
    """
    old = old.detach()
    positive = nft_beta * new + (1 - nft_beta) * old
    negative = (1 + nft_beta) * old - nft_beta * new
    positive_error, negative_error = (
        _normalized_error(predict_x0(noisy, v, t), clean) for v in (positive, negative)
    )  # (B,)
    policy = 5 * (optimal * positive_error + (1 - optimal) * negative_error) / nft_beta
    drift = (new.detach() - old).square().flatten(1).mean(1)
    kl = torch.zeros_like(policy)
    if reference is not None:
        kl = (new - reference.detach()).square().flatten(1).mean(1)
    return NftTerms(policy, kl, drift)


def _normalized_error(predicted: Tensor, clean: Tensor) -> Tensor:
    """Return squared errors over their own mean absolute error, a mean for each picture."""
    off = predicted - clean
    size = off.detach().double().abs().flatten(1).mean(1).clamp_min(1e-5).to(off.dtype)        # (B,)
    return off.square().flatten(1).mean(1) / size


def old_policy_decay(num_updates: int, schedule: DecaySchedule = "grown") -> float:
    """Return the share of its own weights that the sampling policy keeps after so many updates.

    `grown` is the method's own; `zero` samples from the newest weights; `late` follows closely at first, and
    then hardly at all.
    """
    if schedule == "zero":
        return 0.0
    if schedule == "late":
        return min(max(0.0, 0.0075 * (num_updates - 75)), 0.999)
    return min(0.001 * num_updates, 0.5)


def diversity(latents: Tensor) -> Tensor:
    """Return the mean distance between two pictures of a group, over the root of their values' number.

    Shapes: (K, C, h, w) -> ().
    """
    flat = latents.flatten(1)
    distances = torch.pdist(flat.float())
    return distances.mean() / flat.shape[1] ** 0.5
