"""The loss of the pretrain stage as one module, and its replay as CUDA graphs.

Spec: section 8. Letters: B batch, C channels of an image token, h and w latent cells, I image tokens, T text
tokens, L captured layers, E width of a text feature, K kinds of patch label.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lens.errors import SettingError
from lens.losses.flow_matching import flow_matching_loss
from lens.losses.patch_classification import PatchClassificationHead, patch_classification_loss
from lens.models.velocity import predict_velocity
from lens.nano.world.patch_labels import NUM_LABELS
from lens.train.devices import autocast

logger = logging.getLogger(__name__)


class PretrainTerms(NamedTuple):
    """The loss of a batch and its parts, scalars."""

    loss: Tensor
    flow: Tensor
    """Flow-matching loss, detached."""
    layout: Tensor
    """Layout loss, detached; 0 without one."""


class PretrainLoss(nn.Module):
    """Flow matching, and on request the classification of each patch from the output of one block."""

    def __init__(self, denoiser: Any, precision: str, layout_weight: float = 0.0, layout_block: int = 0):
        super().__init__()
        self.denoiser, self.head = denoiser, None
        self._precision, self._layout_weight = precision, layout_weight
        self._image_stream = _ImageStream()
        if not layout_weight:
            return
        blocks = denoiser.transformer_blocks
        if layout_block >= len(blocks):
            raise SettingError("layout_block", layout_block, f"below num_layers = {len(blocks)}")
        self.head = PatchClassificationHead(denoiser.config.inner_dim, NUM_LABELS)
        self.head.init_weights()
        blocks[layout_block].register_forward_hook(self._image_stream.save)

    def forward(
        self, clean: Tensor, t: Tensor, noise: Tensor, features: Sequence[Tensor], mask: Tensor,
        labels: Tensor,
    ) -> PretrainTerms:  # fmt: skip
        """Return the loss of a batch.

        Shapes: clean and noise (B, C, h, w), t (B,), features L of (B, T, E), mask (B, T),
            labels (B, K, h, w).
        """
        flow = self.flow(clean, t, noise, features, mask)
        if self.head is None:
            return PretrainTerms(flow, flow.detach(), torch.zeros_like(flow))
        logits = self.head(self._image_stream.latest.float())                           # K of (B, I, classes)
        layout = patch_classification_loss(logits, labels.flatten(2).long().unbind(1))
        return PretrainTerms(flow + self._layout_weight * layout, flow.detach(), layout.detach())

    def flow(
        self, clean: Tensor, t: Tensor, noise: Tensor, features: Sequence[Tensor], mask: Tensor
    ) -> Tensor:
        """Return the flow-matching loss alone."""

        def velocity(noisy: Tensor, time: Tensor) -> Tensor:
            with autocast(noisy.device, self._precision):
                return predict_velocity(self.denoiser, noisy, time, features, mask)             # (B, C, h, w)

        return flow_matching_loss(velocity, clean, t=t, noise=noise).loss


class CapturedLoss:
    """A loss whose forward and backward pass are replayed as CUDA graphs, one pair for each shape.

    A replay starts all kernels at once, where Python would start them one by one. Without a CUDA device, or
    where a capture fails, the loss is computed as usual, and the log says so.
    """

    def __init__(self, loss: PretrainLoss):
        self._loss = loss
        self._graphs: dict[tuple[torch.Size, ...], Callable[..., PretrainTerms]] = {}
        self._tables: list[Tensor] = []
        """What the graphs read at fixed addresses, beside their inputs and the weights."""
        self._pool: Any = None
        if loss.denoiser.device.type == "cuda":
            # One pool for all: a graph begins when the one before has ended, so they can share their memory.
            self._pool = torch.cuda.graph_pool_handle()
        else:
            logger.warning("capture: there is no CUDA device, so the steps are not captured.")

    def __call__(
        self, clean: Tensor, t: Tensor, noise: Tensor, features: Sequence[Tensor], mask: Tensor,
        labels: Tensor,
    ) -> PretrainTerms:  # fmt: skip
        inputs = clean, t, noise, tuple(features), mask, labels
        shapes = tuple(part.shape for part in tree_leaves(inputs))
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(*inputs)
        return self._graphs[shapes](*inputs)

    def _capture(
        self, clean: Tensor, t: Tensor, noise: Tensor, features: tuple[Tensor, ...], mask: Tensor,
        labels: Tensor,
    ) -> Callable[..., PretrainTerms]:  # fmt: skip
        if self._pool is None:
            return self._loss
        # The denoiser leaves out columns that are padding in the whole batch, and the mask of a batch without
        # padding. A graph must do neither.
        padded = torch.zeros_like(mask)
        padded[0] = True
        samples: Any = (
            clean.clone(), t.clone(), noise.clone(), tuple(map(torch.clone, features)), padded, labels.clone()
        )  # fmt: skip
        try:
            graphed: Any = torch.cuda.make_graphed_callables(
                _Step(self._loss), samples, allow_unused_input=True, pool=self._pool
            )
        except RuntimeError as error:
            logger.warning("capture: shape %s is not captured. %s", tuple(clean.shape), error)
            return self._loss
        cache = self._loss.denoiser._rotary_cache
        self._tables.append(cache.get(*clean.shape[2:], mask.shape[1], clean.device))
        return graphed


class _Step(nn.Module):
    """A module of its own for each shape, as capturing replaces its forward method."""

    def __init__(self, loss: PretrainLoss):
        super().__init__()
        self.loss = loss

    def forward(self, *inputs: Any) -> PretrainTerms:
        return self.loss(*inputs)


class _ImageStream:
    """The image stream after one block, of the latest forward pass."""

    latest: Tensor

    def save(self, _module: nn.Module, _inputs: Any, streams: tuple[Tensor, Tensor]) -> None:
        self.latest = streams[0]
