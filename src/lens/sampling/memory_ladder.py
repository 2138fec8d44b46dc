"""The memory ladder: four ways to run a model, from the most memory to the least, and the choice of one.

`resident` holds everything. `parts` holds one component at a time: the encoder goes block by block, and what
a stage no longer needs is released. `streamed` also reads the denoiser block by block. These three give the
same images, to the bit. `tiled` decodes in tiles too, whose seams are blended, so its pixels differ a little.
Only weights that are views of files can be released. Spec: section 14.
Letters: I image tokens, T text tokens.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lens.errors import MemoryNeedError, SettingError
from lens.models.memory import GB
from lens.sampling.resolved_model import COMPONENTS_WITH_WEIGHTS, ResolvedModel

if TYPE_CHECKING:
    import torch

    from lens.models.checkpoints.reader import LazyTensor

logger = logging.getLogger(__name__)

RungName = Literal["resident", "parts", "streamed", "tiled"]
RUNGS: dict[RungName, str] = {
    "resident": "all weights are resident",
    "parts": "one part at a time, the text encoder block by block",
    "streamed": "text encoder and denoiser block by block from disk",
    "tiled": "text encoder and denoiser block by block from disk, decoding in tiles",
}
STREAMED_RUNGS: tuple[RungName, ...] = ("streamed", "tiled")
LOW_MEMORY_TILE_PX = 512

PROCESS_BYTES = 800_000_000
"""Python and its libraries; measured with torch 2.13, transformers 5.23 and diffusers 0.42."""
ENCODING_BYTES = 100_000_000
"""A dequantized expert, and the activations of a few prompts."""
TEXT_TOKENS = 415
"""Text tokens of the longest prompt, which activations are estimated for."""
DENOISER_VALUES_PER_TOKEN = 32
"""Values of a token in a block at its peak, in widths of the model."""
DECODER_VALUES_PER_PIXEL = 1100
"""Values of a pixel at the peak of decoding, with the released widths."""
SMALL_MODEL_BYTES = 2_000_000_000
"""Weights up to which a command holds a model as a whole: parts would save little."""
MARGIN = 0.85
"""Share of the memory that a rung may take by its estimate, which can miss by a tenth."""


class Rung(NamedTuple):
    """One way to run a model, and the memory that it takes at its peak."""

    name: RungName
    peak_bytes: int
    stages: dict[str, int]
    """Bytes by stage: encoding, denoising, decoding."""

    @property
    def description(self) -> str:
        return RUNGS[self.name]


class ComponentSize(NamedTuple):
    """Bytes of a component's weights."""

    loaded: int
    """As they are held: packed ones as stored, plain ones in the dtype of computation."""
    streamed_block: int
    """As stored, of the largest block, or of all that is in no block."""
    tables: int
    """Of the embedding table and the LM head, whose pages are read only as far as they are used."""


def component_sizes(model: ResolvedModel, dtype: "torch.dtype") -> dict[str, ComponentSize]:
    """Return the sizes of the components of a model, from the headers of its files."""
    return {
        part: _size(_open_part(model, part), dtype) for part in COMPONENTS_WITH_WEIGHTS if model.has(part)
    }


def memory_ladder(
    sizes: Mapping[str, ComponentSize],
    config: Mapping[str, Any],
    size: tuple[int, int],
    itemsize: int,
    *,
    is_on_gpu: bool = False,
) -> list[Rung]:
    """Return the rungs from the most memory to the least, for images of a (height, width).

    `config` is that of the denoiser. A GPU holds a whole encoder, or none in `streamed`.
    Units: itemsize is the bytes of a value of the computation.
    """
    none = ComponentSize(0, 0, 0)
    encoder, denoiser, vae = (sizes.get(part, none) for part in ("text_encoder", "transformer", "vae"))
    height, width = size
    tokens = height // 16 * (width // 16) + TEXT_TOKENS
    width_of_model = config["num_attention_heads"] * config["attention_head_dim"]
    drawing = tokens * width_of_model * DENOISER_VALUES_PER_TOKEN * itemsize
    decoding = height * width * DECODER_VALUES_PER_PIXEL * itemsize
    tile = min(height * width, LOW_MEMORY_TILE_PX**2) * DECODER_VALUES_PER_PIXEL * itemsize
    encoder_bytes = encoder.loaded - encoder.tables
    held = encoder_bytes + denoiser.loaded + vae.loaded
    encoding = ENCODING_BYTES + (encoder.loaded if is_on_gpu else 2 * encoder.streamed_block)
    streamed_encoding = 0 if is_on_gpu else encoding
    stages: dict[RungName, tuple[int, int, int]] = {
        "resident": (held + ENCODING_BYTES, held + drawing, held + decoding),
        "parts": (encoding, denoiser.loaded + drawing, vae.loaded + decoding),
        "streamed": (streamed_encoding, 2 * denoiser.streamed_block + drawing, vae.loaded + decoding),
        "tiled": (streamed_encoding, 2 * denoiser.streamed_block + drawing, vae.loaded + tile),
    }
    return [_rung(name, stages[name]) for name in RUNGS]


def _rung(name: RungName, stages: tuple[int, int, int]) -> Rung:
    by_stage: dict[str, int] = dict(
        zip(("encoding", "denoising", "decoding"), (PROCESS_BYTES + s for s in stages), strict=True)
    )
    return Rung(name, max(by_stage.values()), by_stage)


def choose_rung(ladder: Sequence[Rung], budget_bytes: float, *, is_one_shot: bool) -> Rung:
    """Return the highest rung that fits into a budget.

    A command that runs once uses each part once, so `parts` costs it nothing: it takes that for large models.
    Raises: MemoryNeedError below the lowest rung.
    """
    rungs = list(ladder)
    if is_one_shot and rungs[0].peak_bytes - PROCESS_BYTES > SMALL_MODEL_BYTES:
        rungs = rungs[1:]
    lowest = rungs[-1]
    for rung in rungs:
        if rung.peak_bytes <= budget_bytes * (1 if rung is lowest else MARGIN):
            return rung
    raise MemoryNeedError(
        f"This model takes at least {lowest.peak_bytes / GB:.1f} GB ({lowest.description}), but "
        f"{budget_bytes / GB:.1f} GB may be used. Close other programs, choose a smaller size, or raise "
        "--memory; lens-nano needs under 1 GB."
    )


def resolve_rung(
    model: ResolvedModel,
    dtype: "torch.dtype",
    memory: str = "auto",
    *,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
    is_one_shot: bool = False,
) -> Rung:
    """Return the rung for images of a (height, width) in some memory; "auto" is what the device has free.

    Without a size it is the model's default. The choice is logged for a large model, or if memory is given.
    Raises: SettingError for a memory that is no size; MemoryNeedError below the lowest rung.
    """
    from lens.models.memory import available_memory

    asked = parse_memory(memory)
    free = available_memory(device if device.startswith(("cuda", "xpu")) else "cpu")
    sizes = component_sizes(model, dtype)
    base = model.defaults.base_resolution
    ladder = memory_ladder(
        sizes,
        model.configs["transformer"],
        size or (base, base),
        compute_itemsize(dtype, device),
        is_on_gpu=device != "cpu",
    )
    rung = choose_rung(ladder, free if asked is None else asked, is_one_shot=is_one_shot)
    if asked is not None or sum(one.loaded for one in sizes.values()) > SMALL_MODEL_BYTES:
        budget = f"{free / GB:.1f} GB is free" if asked is None else f"{asked / GB:.1f} GB may be used"
        logger.info("%s: about %.1f GB; %s.", rung.description.capitalize(), rung.peak_bytes / GB, budget)
    return rung


def compute_itemsize(dtype: "torch.dtype", device: str) -> int:
    """Return the bytes of an activation, which is in float32 on a CPU that computes faster in it."""
    import torch

    from lens.core.products import cpu_compute_dtype

    with torch.no_grad():
        return cpu_compute_dtype(torch.empty(0, dtype=dtype)).itemsize if device == "cpu" else dtype.itemsize


def parse_memory(text: str, setting: str = "--memory") -> int | None:
    """Return the bytes of a text such as 8GB, 3.5 GB or 900MB; None for "auto", which is what is free.

    Raises: SettingError for anything else.
    """
    if text.strip().lower() == "auto":
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])(i?)b?\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise SettingError(setting, text, "a size such as 8GB or 900MB, or auto")
    power = "kmgt".index(match[2].lower()) + 1
    return round(float(match[1]) * (1024 if match[3] else 1000) ** power)


def apply_rung(pipeline: Any, name: RungName) -> None:
    """Make a pipeline in main memory run on a rung, which releases weights that are views of their files."""
    from lens.models.block_streaming import stream_blocks
    from lens.models.hidden_states import HiddenStateExtractor

    if pipeline.transformer is not None:
        pipeline.transformer.memory_rung = name
    if name == "resident":
        return
    if isinstance(pipeline.text_encoder, HiddenStateExtractor):
        pipeline.text_encoder.releases_blocks = True
    if name in STREAMED_RUNGS and pipeline.transformer is not None:
        stream_blocks(pipeline.transformer.transformer_blocks)
    if name == "tiled" and pipeline.vae is not None:
        pipeline.enable_vae_tiling(LOW_MEMORY_TILE_PX)


def _open_part(model: ResolvedModel, part: str) -> "Mapping[str, LazyTensor]":
    from lens.models.checkpoints.diffusers_folder import open_component, resolve_component_folder
    from lens.models.checkpoints.gpt_oss_layouts import join_mxfp4_experts, open_text_encoder_file
    from lens.models.checkpoints.single_file import open_denoiser_file
    from lens.models.checkpoints.vae import open_vae_file

    path = model.component_path(part)
    if path.is_dir():
        return join_mxfp4_experts(open_component(resolve_component_folder(path, part), part).tensors)
    if part == "vae":
        return open_vae_file(path)[0].tensors
    return (open_denoiser_file if part == "transformer" else open_text_encoder_file)(path).tensors


def _size(tensors: "Mapping[str, LazyTensor]", dtype: "torch.dtype") -> ComponentSize:
    loaded, blocks, tables = 0, {}, 0
    for name, tensor in tensors.items():
        stored = _stored_bytes(tensor)
        held = stored if tensor.packed is not None else _count(tensor) * dtype.itemsize
        loaded += held
        block = re.search(r"(?:layers|transformer_blocks)\.(\d+)\.", name)
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            tables += held
        else:
            blocks[block and block[1]] = blocks.get(block and block[1], 0) + stored
    return ComponentSize(loaded, max(blocks.values(), default=0), tables)


def _stored_bytes(tensor: "LazyTensor") -> int:
    if tensor.packed is None:
        return tensor.num_bytes
    sources = [tensor.packed, *([tensor.packed.interleaved] if tensor.packed.interleaved else [])]
    return sum(part.num_bytes for source in sources for part in source.parts)


def _count(tensor: "LazyTensor") -> int:
    count = 1
    for side in tensor.shape:
        count *= side
    return count
