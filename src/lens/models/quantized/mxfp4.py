"""MXFP4 experts of GPT-OSS: whether this machine has the kernels to compute with them.

MXFP4 is 32 values of 4 bits under one scale of 8. Kernels exist for Hopper and newer GPUs; on other devices
the experts become bfloat16 at load, which is four times as large. Spec: sections 4, 6 and 14.
"""

from collections.abc import Sequence

MIN_CUDA_CAPABILITY = (9, 0)
KERNELS_REPOSITORY = "kernels-community/gpt-oss-triton-kernels"


def is_capable(capability: tuple[int, int] | None) -> bool:
    """Return whether the kernels run on a GPU of this compute capability; None is no GPU."""
    return capability is not None and capability >= MIN_CUDA_CAPABILITY


def missing_kernels() -> list[str]:
    """Return the packages that this machine lacks to compute in MXFP4; empty where it has all."""
    from transformers.utils.import_utils import is_kernels_available, is_triton_available

    missing = [] if is_triton_available("3.4.0") else ["the package triton (3.4 or later)"]
    if not is_kernels_available():
        return [*missing, "the package kernels"]
    try:
        from transformers.integrations.hub_kernels import get_kernel

        get_kernel(KERNELS_REPOSITORY, version=1)
    except Exception as error:  # whatever stops the kernels, the model still loads without them
        missing.append(f"{KERNELS_REPOSITORY} ({type(error).__name__})")
    return missing


def dequantization_reason(
    device_type: str, capability: tuple[int, int] | None, missing: Sequence[str]
) -> str:
    """Return why the experts must be dequantized on a device; empty where they can stay in MXFP4."""
    if device_type != "cuda" or capability is None:
        return f"the kernels need a CUDA device and this is {device_type}"
    if not is_capable(capability):
        needs, got = (".".join(map(str, numbers)) for numbers in (MIN_CUDA_CAPABILITY, capability))
        return f"the kernels need compute capability {needs} and this device has {got}"
    return f"the kernels lack {' and '.join(missing)}" if missing else ""
