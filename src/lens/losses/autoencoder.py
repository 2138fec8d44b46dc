"""Autoencoder loss: reconstruction error of pixels and edges, and a KL term."""

import torch.nn.functional as F
from torch import Tensor

from lens.losses.base import LossOutput


def reconstruction_loss(
    pixels: Tensor, decoded: Tensor, mean: Tensor, logvar: Tensor, *, edge_weight: float, kl_weight: float
) -> LossOutput:
    """Return the sum of absolute and squared errors, the error of neighbouring differences, and the KL term.

    Shapes: pixels and decoded (B, 3, H, W) in [-1, 1]; mean and logvar (B, c, H/8, W/8).
    """
    decoded, mean, logvar = decoded.float(), mean.float(), logvar.float()
    absolute, squared = F.l1_loss(decoded, pixels), F.mse_loss(decoded, pixels)
    down, right = (F.l1_loss(decoded.diff(dim=dim), pixels.diff(dim=dim)) for dim in (2, 3))
    edges = down + right
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss = absolute + squared + edge_weight * edges + kl_weight * kl
    psnr_db = -10 * (squared.detach() / 4).log10()  # the range of pixels is 2, so its square is 4
    return LossOutput(loss, {"vae/psnr_db": psnr_db, "vae/edges": edges.detach(), "vae/kl": kl.detach()})
