"""DiffusionNFT loss: pulls the velocity toward images of high reward and away from those of low reward.

Paper: DiffusionNFT (arXiv 2509.16117). Spec: section 9. Letters: G groups, K images per group, B images,
C channels, h and w latent cells.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lens.core.flow import predict_x0

DecaySchedule = Literal["grown", "zero", "late"]


class NftTerms(NamedTuple):
    """Terms of the loss, one value per image, (B,)."""

    policy: Tensor
    kl: Tensor
    """Squared distance of the velocity from that of the reference model."""
    drift: Tensor
    """Squared distance from the velocity of the sampling policy; for the log."""


def advantages(raw: Tensor, clip: float = 5.0) -> Tensor:
    """Return each reward minus its group's mean, over the standard deviation of all; 0 for missing rewards.

    Shapes: raw (G, K), NaN for a missing reward -> (G, K) in [-clip, clip].
    """
    is_there = raw.isfinite()
    means = raw.nanmean(dim=1, keepdim=True)                                                    # (G, 1)
    spread = raw[is_there].std(correction=0) if is_there.any() else raw.new_zeros(())
    normalized = (raw - means) / (spread + 1e-4)
    return normalized.nan_to_num(0.0).clamp(-clip, clip)


def optimality(advantage: Tensor, width: float = 10.0) -> Tensor:
    """Return the optimality probability, in [0, 1], of an image with this advantage; 1/2 at advantage 0."""
    return (advantage / width + 0.5).clamp(0, 1)


def has_equal_rewards(raw: Tensor) -> Tensor:
    """Return for each group whether all its rewards are equal, so that it has no learning signal.

    Shapes: raw (G, K), NaN for a missing reward -> (G,).
    """
    lowest = raw.nan_to_num(torch.inf).amin(dim=1)
    highest = raw.nan_to_num(-torch.inf).amax(dim=1)
    return highest - lowest <= 1e-6


def nft_terms(
    new: Tensor, old: Tensor, reference: Tensor | None, noisy: Tensor, clean: Tensor, *,
    t: Tensor, optimal: Tensor, nft_beta: float,
) -> NftTerms:  # fmt: skip
    """Return the terms of the loss for velocities at noised versions of images with rewards.

    The positive and the negative policy, mixed from the new and the old one, are compared in x_0 space. Each
    error is divided by its own mean absolute size, so that all times have the same weight.

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
    """Return the mean squared error of each image over its mean absolute error."""
    off = predicted - clean
    size = off.detach().double().abs().flatten(1).mean(1).clamp_min(1e-5).to(off.dtype)        # (B,)
    return off.square().flatten(1).mean(1) / size


def old_policy_decay(num_updates: int, schedule: DecaySchedule = "grown") -> float:
    """Return the EMA decay of the sampling policy after this number of updates.

    `grown` is that of the paper. `zero` samples from the newest weights. `late` follows closely at first, and
    later hardly at all.
    """
    if schedule == "zero":
        return 0.0
    if schedule == "late":
        return min(max(0.0, 0.0075 * (num_updates - 75)), 0.999)
    return min(0.001 * num_updates, 0.5)


def diversity(latents: Tensor) -> Tensor:
    """Return the mean distance between two images of a group, over the square root of their dimension.

    Shapes: (K, C, h, w) -> ().
    """
    flat = latents.flatten(1)
    distances = torch.pdist(flat.float())
    return distances.mean() / flat.shape[1] ** 0.5
