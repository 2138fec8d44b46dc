"""Image processor: source images and masks to pixels; diffusers' image processor makes the output of them.

Knows nothing of latents but their size. All input is quantised to 8 bits per channel.
Letters: B batch, H W the size in pixels, h w in latent cells.
Units: pixels in [-1, 1]; masks in [0, 1], 1 = redraw.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from lens.core.images import cut_share, to_mask, to_srgb
from lens.core.resolution import MAX_AREA_PX, MAX_RATIO, SIDE_STEP_PX
from lens.errors import SettingError

ImageInput = Image.Image | np.ndarray | Tensor | str | Path
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
UNSEEN_CUT = 0.02
"""Share of a side that rounding a size may cut: what remains of it is not worth another size."""


def load_images(image: ImageInput | Sequence[ImageInput], setting: str = "image") -> list[Image.Image]:
    """Return RGB images of one or several paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).

    Images become upright and opaque (white below), in sRGB. Arrays and tensors may have a fourth channel,
    alpha. Floats are in [0, 1], whole numbers as wide as their type.
    Raises: SettingError for input that cannot be read as an image.
    """
    return _load_each(image, setting, lambda one: to_srgb(one).image)


def check_image_file(path: str | Path, setting: str = "image") -> None:
    """Raise SettingError for a file that is no image. Its pixels are not decoded."""
    try:
        with Image.open(path):
            pass
    except Exception as error:  # decoders raise any exception for damaged files
        raise _unreadable(path, setting, error) from error


def resize_to_cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return the image at this size: resized to cover it, centre-cropped; unchanged if it has that size."""
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def size_from_image(image: Image.Image, base_resolution: int) -> tuple[int, int]:
    """Return the (height, width) to generate at for a source image: its own, rounded to steps of 16 px.

    Sides are rounded down unless another rounding keeps much more of the image. Areas above the model's range
    shrink to that of its base; ratios are limited to 1:2 to 2:1.
    """
    width, height = image.size
    max_area_px = MAX_AREA_PX * (base_resolution / 1024) ** 2
    if height * width > max_area_px:
        shrink = base_resolution / (height * width) ** 0.5
        height, width = height * shrink, width * shrink
    height, width = min(height, MAX_RATIO * width), min(width, MAX_RATIO * height)
    rows, columns = (max(1, int(side // SIDE_STEP_PX)) for side in (height, width))
    sizes = [
        (tall * SIDE_STEP_PX, wide * SIDE_STEP_PX)
        for tall in (rows, rows + 1)
        for wide in (columns, columns + 1)
        if max(tall, wide) <= MAX_RATIO * min(tall, wide)
    ]

    def loss(size: tuple[int, int]) -> tuple[float, int]:
        return max(UNSEEN_CUT, cut_share(image.size, (size[1], size[0]))), size[0] * size[1]

    return min((size for size in sizes if size[0] * size[1] <= max_area_px or size == sizes[0]), key=loss)


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Return images of one size as pixels.

    Shapes: -> (B, 3, H, W).
    """
    arrays = np.stack([np.asarray(image) for image in images])  # (B, H, W, 3)
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)


def load_mask_images(mask: ImageInput | Sequence[ImageInput]) -> list[Image.Image]:
    """Return masks of either convention (see `to_mask`) in grey, white where they redraw."""
    if isinstance(mask, (np.ndarray, Tensor)) and mask.ndim == 2:
        mask = mask[None]  # type: ignore[assignment]
    if isinstance(mask, (np.ndarray, Tensor)) and mask.ndim == 3 and mask.shape[-1] not in (1, 3, 4):
        mask = list(mask)
    return _load_each(mask, "mask_image", to_mask)


def mask_pixels(masks: Sequence[Image.Image]) -> Tensor:
    """Return grey masks of one size; white is 1.

    Shapes: -> (B, 1, H, W).
    """
    return torch.stack([torch.from_numpy(np.asarray(one).copy()) for one in masks])[:, None].float() / 255


def latent_mask(mask: Tensor, h: int, w: int) -> Tensor:
    """Return True for every latent cell that the mask overlaps.

    Shapes: (B, 1, H, W) -> (B, h*w, 1).
    """
    touched = functional.adaptive_max_pool2d(mask, (h, w)) > 0  # (B, 1, h, w)
    return touched.flatten(2).transpose(1, 2)  # (B, h*w, 1)


def _unreadable(path: str | Path, setting: str, error: Exception) -> SettingError:
    fix = f"It could not be opened: {error}."
    return SettingError(setting, str(path), "a readable image (png, jpg, webp)", fix)


def _load_each(
    image: ImageInput | Sequence[ImageInput], setting: str, convert: Callable[[Image.Image], Image.Image]
) -> list[Image.Image]:
    if isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4:
        image = list(image)
    if not isinstance(image, (list, tuple)):
        image = [image]  # type: ignore[list-item]
    if not image:
        raise SettingError(setting, image, "at least one image")
    return [_load(one, setting, convert) for one in image]  # type: ignore[arg-type]


def _load(image: ImageInput, setting: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if isinstance(image, (str, Path)):
        try:
            with Image.open(image) as opened:
                return convert(opened)
        except Exception as error:  # decoders raise any exception for damaged files
            raise _unreadable(image, setting, error) from error
    if isinstance(image, Image.Image):
        return convert(image)
    if isinstance(image, Tensor):
        # (C, H, W) -> (H, W, C), for channels first; (H, W) stays
        image = image.detach().cpu()
        image = (image.movedim(0, -1) if image.ndim == 3 and image.shape[0] in (1, 3, 4) else image).numpy()
    if isinstance(image, np.ndarray):
        return convert(_from_array(image, setting))
    raise SettingError(setting, type(image).__name__, "a path, a PIL image, an array or a tensor")


def _from_array(array: np.ndarray, setting: str) -> Image.Image:
    values: Any = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (3, 4)):
        raise SettingError(setting, f"an array of shape {array.shape}", "the shape (height, width, 3)")
    if values.dtype == np.bool_ or np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise SettingError(
                setting, "an array of floats", "values in [0, 1]", "Rescale it, or pass bytes."
            )
        values = np.rint(values * 255)
    elif values.dtype == np.uint16:
        values = np.rint(values / 257)
    elif values.size and not 0 <= values.min() <= values.max() <= 255:
        got = f"an array of {values.dtype} from {values.min()} to {values.max()}"
        raise SettingError(setting, got, "values in 0..255", "Rescale it to bytes, or to floats in [0, 1].")
    return Image.fromarray(values.astype(np.uint8))
