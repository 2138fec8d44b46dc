"""Loading of a model for `lens generate`: device, dtype, memory check, quantisation, LoRAs, offloading."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lens.cli.generation.request import GenerateArguments
from lens.cli.process import prepare_libraries
from lens.errors import MemoryNeedError, SettingError, first_line
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX

if TYPE_CHECKING:
    from lens.sampling.pipeline import LensPipeline
    from lens.sampling.resolved_model import ResolvedModel

logger = logging.getLogger(__name__)

MAX_FLOAT32_BYTES = 4_000_000_000
"""Size of the weights up to which float32 is the default on a CPU."""
LOGGED_ABOVE_BYTES = 2_000_000_000
"""Size of the weights above which their memory is logged before they are loaded."""


def prepare_pipeline(model: "ResolvedModel", arguments: GenerateArguments) -> tuple["LensPipeline", str]:
    """Return the pipeline on its device with LoRAs, and the name of the dtype it computes in."""
    prepare_libraries(needed=_required_packages(model, arguments))
    import torch

    from lens.sampling.pipeline import LensPipeline

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = pick_device(arguments.device)
    if arguments.offload != "none" and not device.startswith("cuda"):
        raise SettingError("--offload", arguments.offload, "a CUDA device", f"Omit it on {device}.")
    dtype = pick_dtype(arguments.dtype, device, model)
    check_memory_fit(model, device, dtype, arguments.quantization, arguments.offload)
    pipeline = LensPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype))
    pipeline.set_progress_bar_config(disable=True)
    if arguments.quantization is not None:
        from lens.models.quantized.torchao import quantize_weights

        for part in (pipeline.transformer, pipeline.text_encoder):
            quantize_weights(part, arguments.quantization)
    if arguments.loras:
        from lens.models.checkpoints.adapters.lora import load_loras

        load_loras(pipeline.transformer, arguments.loras)
    place_on_device(pipeline, device, arguments.offload)
    return pipeline, dtype


def check_memory_fit(
    model: "ResolvedModel", device: str, dtype: str, quantization: str | None, offload: str
) -> None:
    """Raise MemoryNeedError if the weights do not fit; log the memory of large or quantised weights.

    All weights are loaded into main memory first, and quantised there.
    """
    from lens.models.memory import GB, check_memory, expected_memory

    configs = dict(model.configs)
    if "quantization_config" in configs.get("text_encoder", {}):
        del configs["text_encoder"]  # the loader of packed weights checks their memory itself
    loading_bytes = expected_memory(configs, dtype)
    resident_bytes = expected_memory(configs, dtype, quantization)
    lines = [check_memory(loading_bytes, "cpu")]
    if device.startswith("cuda"):
        device_bytes = resident_bytes
        if offload == "model":
            device_bytes = dict([max(resident_bytes.items(), key=lambda part: part[1])])
        elif offload == "group":
            device_bytes = {part: size for part, size in resident_bytes.items() if part != "transformer"}
        lines.append(check_memory(device_bytes, device))
    if quantization is not None:
        lines.append(
            f"Quantized to {quantization} the weights take {sum(resident_bytes.values()) / GB:.1f} GB."
        )
    if quantization is not None or sum(loading_bytes.values()) > LOGGED_ABOVE_BYTES:
        for line in lines:
            logger.info(line)


def place_on_device(pipeline: "LensPipeline", device: str, offload: str) -> None:
    """Move the pipeline to its device: all of it, one component at a time ("model"), or the denoiser by
    blocks ("group")."""
    if offload == "none":
        pipeline.to(device)
        return
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
        return
    import torch

    for part in (pipeline.text_encoder, pipeline.vae):
        part.to(device)
    # Block by block, not layer by layer: layers of the last block that never run would break the order in
    # which the stream fetches ahead.
    pipeline.transformer.enable_group_offload(
        torch.device(device), offload_type="block_level", num_blocks_per_group=1, use_stream=True
    )


def pick_device(requested: str | None) -> str:
    """Return the requested device, or the fastest available one.

    Raises: SettingError for a device that torch does not know or that this machine lacks.
    """
    import torch

    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if requested is None:
        return available[0]
    kind, _, index = requested.partition(":")
    is_available = kind in available and (
        not index or (index.isdigit() and int(index) < max(1, torch.cuda.device_count()))
    )
    if not is_available:
        raise SettingError(
            "--device", requested, f"one of {', '.join(available)}", "This machine has no other."
        )
    return requested


def pick_dtype(requested: str | None, device: str, model: "ResolvedModel") -> str:
    """Return the requested dtype; "auto" is bfloat16, and float32 for small models on a CPU."""
    from lens.models.memory import expected_memory

    if requested not in (None, "auto"):
        return requested
    is_small = sum(expected_memory(model.configs, "float32").values()) <= MAX_FLOAT32_BYTES
    return "float32" if device == "cpu" and is_small else "bfloat16"


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn an out-of-memory error into a MemoryNeedError with a remedy."""
    remedy = "Try --offload model, --quantize int8, --dtype bfloat16, or a smaller --size."
    try:
        yield
    except MemoryNeedError:
        raise
    except MemoryError as error:
        raise MemoryNeedError(f"The main memory is exhausted. {remedy}") from error
    except RuntimeError as error:
        from lens.models.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise MemoryNeedError(f"Out of memory during generation ({first_line(error)}). {remedy}") from error


def _required_packages(model: "ResolvedModel", arguments: GenerateArguments) -> set[str]:
    has_gguf = any(path.suffix.lower() == GGUF_SUFFIX for path in model.parts.values())
    reasons = {"peft": arguments.loras, "torchao": arguments.quantization, "gguf": has_gguf}
    return {package for package, reason in reasons.items() if reason}
