"""VAE encoding and decoding: pixels to normalized FLUX.2 latents and back, through AutoencoderKLFlux2.

The autoencoder has c channels at 1/8 of the size. The denoiser sees 2x2 patches of them, normalized by the
statistics of the autoencoder's BatchNorm. An autoencoder in float16 computes in float32, as its activations
overflow float16. Knows nothing of prompts, sampling or files.
Letters: B batch, c latent channels, 4c patched channels, h and w the size in patches (1/16 of the pixels).
Order: patched channels run (c, row, column). Spec: sections 5 and 6 (latents).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from lens.core.latents import patchify, unpatchify
from lens.core.products import HALF, cpu_compute_dtype
from lens.errors import NonFiniteError, SettingError, ShapeError

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

TILE_OVERLAP = 0.25
"""Share of a tile's side that overlaps with its neighbour; the two are blended there."""

MIN_BLEND_WEIGHT = 1e-4
"""Lower bound of a tile's weight, which keeps the sum of weights of every pixel above zero."""

NON_FINITE_LATENTS = (
    "{share} of the latents are not finite, so there is no image. The denoiser overflowed, or its weights or "
    "those of a LoRA are damaged: compute in bfloat16 or float32, lower the weight of the LoRA, or check the "
    "files."
)
NON_FINITE_ENCODED = (
    "{share} of the latents of an image are not finite. The autoencoder overflowed in {dtype}, or its "
    "weights are damaged: compute in bfloat16 or float32, or check its files."
)
NON_FINITE_PIXELS = (
    "{share} of the pixels are not finite, so there is no image. The autoencoder overflowed in {dtype}, or "
    "its weights are damaged: compute in bfloat16 or float32, or check its files."
)


def encode_pixels(
    vae: "AutoencoderKLFlux2", pixels: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Return normalized latents: the mean of the posterior, or a sample of it with a generator.

    They have the dtype of computation: the autoencoder's, or float32 if that is float16 or slow on this CPU.

    Shapes: pixels (B, 3, H, W) -> (B, 4c, H/16, W/16).
    Units: pixels in [-1, 1].
    Raises: ShapeError unless both sides are multiples of a latent cell's side in pixels; NonFiniteError.
    """
    cell_px = spatial_compression_ratio(vae)
    if pixels.ndim != 4 or pixels.shape[-2] % cell_px or pixels.shape[-1] % cell_px:
        raise ShapeError(
            f"Pixels are {tuple(pixels.shape)}, but need (B, 3, H, W) with sides divisible by {cell_px}."
        )
    with _computing_wide_enough(vae):
        posterior = vae.encode(pixels.to(_compute_dtype(vae))).latent_dist  # type: ignore[union-attr]
    latents = posterior.mode() if generator is None else posterior.sample(generator=generator)
    _check_finite(latents, NON_FINITE_ENCODED)
    return normalize_latents(vae, patchify(latents))  # (B, 4c, h, w)


def decode_latents(
    vae: "AutoencoderKLFlux2",
    latents: Tensor,
    tile_px: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the pixels of normalized latents, decoded one image at a time so that none depends on its batch.

    They have the dtype of computation: the autoencoder's, or float32 if that is float16 or slow on this CPU.
    `on_progress` is called with (tiles done, tiles in all); an exception of it stops the work.

    Shapes: latents (B, 4c, h, w) -> (B, 3, 16h, 16w).
    Units: pixels in [-1, 1], clamped; tile_px is the side of a square tile, None decodes in one piece.
    Raises: SettingError for a tile that is not a multiple of a latent cell, or too small to overlap;
    NonFiniteError for latents or pixels that are not finite, which a clamp and an image file would hide.
    """
    cell_px = spatial_compression_ratio(vae)
    tiles = _tiles(latents.shape[-2], latents.shape[-1], _tile_cells(tile_px, cell_px))
    _check_finite(latents, NON_FINITE_LATENTS)
    grid = unpatchify(denormalize_latents(vae, latents)).to(_compute_dtype(vae))  # (B, c, 2h, 2w)
    images = []
    for index, one in enumerate(grid.split(1)):
        done = index * len(tiles)

        def report(tiles_done: int, done: int = done) -> None:
            if on_progress is not None:
                on_progress(done + tiles_done, len(grid) * len(tiles))

        with _computing_wide_enough(vae):
            image = _decode_image(vae, one, tiles, cell_px, report)
        _check_finite(image, NON_FINITE_PIXELS)
        images.append(image)
    return torch.cat(images).clamp(-1, 1)  # (B, 3, 16h, 16w)


def normalize_latents(vae: "AutoencoderKLFlux2", patches: Tensor) -> Tensor:
    """Return patched latents normalized to about zero mean and unit variance by the autoencoder's statistics.

    Shapes: (B, 4c, h, w) -> (B, 4c, h, w).
    """
    mean, std = _statistics(vae, patches)
    return (patches - mean) / std


def denormalize_latents(vae: "AutoencoderKLFlux2", latents: Tensor) -> Tensor:
    """Undo `normalize_latents`.

    Shapes: (B, 4c, h, w) -> (B, 4c, h, w).
    """
    mean, std = _statistics(vae, latents)
    return latents * std + mean


def resize_latents(vae: "AutoencoderKLFlux2", latents: Tensor, h: int, w: int) -> Tensor:
    """Return normalized latents at another size, interpolated on the autoencoder's own grid of cells.

    Shapes: (B, 4c, h', w') -> (B, 4c, h, w), float32.
    """
    grid = unpatchify(denormalize_latents(vae, latents.float()))  # (B, c, 2h', 2w')
    grid = functional.interpolate(grid, (2 * h, 2 * w), mode="bicubic", align_corners=False)
    return normalize_latents(vae, patchify(grid))  # (B, 4c, h, w)


def spatial_compression_ratio(vae: "AutoencoderKLFlux2") -> int:
    """Return the side in pixels of one latent cell: 16 for FLUX.2."""
    return 2 ** (len(vae.config.block_out_channels) - 1) * vae.config.patch_size[0]  # type: ignore[attr-defined]


def _statistics(vae: "AutoencoderKLFlux2", like: Tensor) -> tuple[Tensor, Tensor]:
    # The statistics move to the latents: an offloaded autoencoder keeps its buffers on the CPU.
    mean, var = vae.bn.running_mean, vae.bn.running_var
    if mean is None or var is None or like.shape[1] != mean.shape[0]:
        have = "none" if mean is None else mean.shape[0]
        raise ShapeError(
            f"Latents have {like.shape[1]} channels, but the autoencoder's statistics have {have}."
        )
    std = (var.float() + vae.config.batch_norm_eps).sqrt()  # type: ignore[attr-defined]
    return tuple(stat.to(like.device, like.dtype).view(1, -1, 1, 1) for stat in (mean.float(), std))  # type: ignore


class _HalfAsFloat32(TorchFunctionMode):
    """Widens weights of 16 bits to float32 where they meet float32 activations, one layer at a time.

    The weights themselves stay as they are, wherever offloading keeps and moves them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        dtypes = {leaf.dtype for leaf in leaves if isinstance(leaf, Tensor)}
        is_float32 = dtypes == {torch.float32}
        if (
            func == Tensor.to
            and is_float32
            and any(leaf in HALF for leaf in leaves if isinstance(leaf, torch.dtype))
        ):
            return args[0]  # the decoder would cast its activations to the dtype of its weights
        if torch.float32 in dtypes and not dtypes.isdisjoint(HALF):
            args, kwargs = tree_map(_widen, args), tree_map(_widen, kwargs)
        return func(*args, **kwargs)


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def _compute_dtype(vae: "AutoencoderKLFlux2") -> torch.dtype:
    """Return the dtype of computation; convolutions in bfloat16 are slow where products in it are."""
    if vae.dtype == torch.float16:
        return torch.float32
    return cpu_compute_dtype(next(vae.parameters()))


def _computing_wide_enough(vae: "AutoencoderKLFlux2") -> AbstractContextManager[Any]:
    return nullcontext() if _compute_dtype(vae) == vae.dtype else _HalfAsFloat32()


def _check_finite(values: Tensor, message: str) -> None:
    """Raise NonFiniteError unless all values (B, C, ...) are finite; the message may use share and dtype."""
    num_bad = int((~torch.isfinite(values).all(dim=1)).sum())
    if num_bad:
        share = 100 * num_bad * values.shape[1] / values.numel()
        dtype = str(values.dtype).removeprefix("torch.")
        raise NonFiniteError(message.format(share=f"{share:.3g}%", dtype=dtype))


class _Tile(NamedTuple):
    """A rectangle of latent cells, and its overlap in cells with the tile on each side."""

    top: int
    left: int
    bottom: int
    right: int
    overlap_top: int
    overlap_left: int
    overlap_bottom: int
    overlap_right: int


def _tile_cells(tile_px: int | None, cell_px: int) -> int | None:
    if tile_px is None:
        return None
    if tile_px % cell_px or tile_px < 4 * cell_px:
        raise SettingError("tile_px", tile_px, f"a multiple of {cell_px} of at least {4 * cell_px}")
    return tile_px // cell_px


def _tiles(height: int, width: int, side: int | None) -> list[_Tile]:
    """Return tiles that cover a grid of latent cells; each overlaps its neighbours."""
    return [
        _Tile(top, left, bottom, right, above, before, below, after)
        for top, bottom, above, below in _tile_spans(height, side)
        for left, right, before, after in _tile_spans(width, side)
    ]


def _tile_spans(length: int, side: int | None) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, stop, overlap with the tile before, overlap with the tile after) in cells."""
    if side is None or length <= side:
        yield 0, length, 0, 0
        return
    stride = side - max(1, round(side * TILE_OVERLAP))
    starts = [*range(0, length - side, stride), length - side]
    for index, start in enumerate(starts):
        before = starts[index - 1] + side - start if index else 0
        after = start + side - starts[index + 1] if index + 1 < len(starts) else 0
        yield start, start + side, before, after


def _decode_image(
    vae: "AutoencoderKLFlux2", grid: Tensor, tiles: list[_Tile], cell_px: int, report: Callable[[int], None]
) -> Tensor:
    if len(tiles) == 1:
        image = vae.decode(grid).sample  # type: ignore[union-attr]
        report(1)
        return image
    patch = vae.config.patch_size[0]  # type: ignore[attr-defined]
    height, width = (side // patch * cell_px for side in grid.shape[-2:])
    image = torch.zeros(1, vae.config.out_channels, height, width, device=grid.device)  # type: ignore[attr-defined]
    weights = torch.zeros(1, 1, height, width, device=grid.device)
    for index, tile in enumerate(tiles):
        cells = grid[:, :, tile.top * patch : tile.bottom * patch, tile.left * patch : tile.right * patch]
        pixels = vae.decode(cells).sample.float()  # type: ignore[union-attr]
        rows = _blend_weights(
            pixels.shape[-2], tile.overlap_top * cell_px, tile.overlap_bottom * cell_px, pixels.device
        )
        columns = _blend_weights(
            pixels.shape[-1], tile.overlap_left * cell_px, tile.overlap_right * cell_px, pixels.device
        )
        weight = rows[:, None] * columns[None, :]  # (tile H, tile W)
        region = (
            ...,
            slice(tile.top * cell_px, tile.bottom * cell_px),
            slice(tile.left * cell_px, tile.right * cell_px),
        )
        image[region] += pixels * weight
        weights[region] += weight
        report(index + 1)
    return (image / weights).to(grid.dtype)


def _blend_weights(length: int, rise: int, fall: int, device: torch.device) -> Tensor:
    """Return weights that rise over the overlap with the tile before and fall over the overlap with the next.

    Only the middle half of an overlap is blended, as a tile has padding artefacts at its border.
    """
    weights = torch.ones(length, device=device)  # (length,)
    weights[:rise] *= _linear_ramp(rise, device)
    weights[length - fall :] *= _linear_ramp(fall, device).flip(0)
    return weights


def _linear_ramp(overlap: int, device: torch.device) -> Tensor:
    line = (torch.arange(overlap, device=device) + 0.5) / max(overlap, 1)  # (overlap,)
    return (2 * line - 0.5).clamp(MIN_BLEND_WEIGHT, 1)
