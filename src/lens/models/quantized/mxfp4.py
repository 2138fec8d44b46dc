"""MXFP4 experts of GPT-OSS: whether a device has native kernels to compute with them.

MXFP4 is 32 values of 4 bits under one scale of 8. transformers has kernels for CUDA and XPU devices. Its
kernels for CPUs need a Triton that compiles for CPUs, which no release does; CPUs are left out here. Without
the kernels the experts stay packed, and are widened one at a time. Spec: sections 4, 6 and 14.
"""

from collections.abc import Sequence

MIN_CUDA_CAPABILITY = (7, 5)
MIN_TRITON_VERSIONS = {"cuda": "3.4.0", "xpu": "3.5.0"}
"""By type of device; a test compares these and the capability with transformers' own."""
KERNELS_REPOSITORY = "kernels-community/gpt-oss-triton-kernels"
COMPUTE_BYTES = 2
"""The kernels multiply with activations in bfloat16 or float16."""


def is_capable(device_type: str, capability: tuple[int, int] | None) -> bool:
    """Return whether there are kernels for a type of device; `capability` is that of a CUDA device."""
    if device_type == "cuda":
        return capability is not None and capability >= MIN_CUDA_CAPABILITY
    return device_type in MIN_TRITON_VERSIONS


def missing_kernels(device_type: str) -> list[str]:
    """Return what this machine lacks to compute in MXFP4 on a type of device; empty where it has all.

    The kernels themselves are loaded, and fetched from the hub if needed, once the packages are there.
    """
    from transformers.utils.import_utils import (
        KERNELS_MAX_VERSION,
        KERNELS_MIN_VERSION,
        is_accelerate_available,
        is_kernels_available,
        is_triton_available,
    )

    triton = MIN_TRITON_VERSIONS[device_type]
    missing = [] if is_accelerate_available() else ["the package accelerate"]
    if not is_triton_available(triton):
        missing.append(f"the package triton (at least {triton})")
    if not is_kernels_available():
        missing.append(f"the package kernels (at least {KERNELS_MIN_VERSION}, below {KERNELS_MAX_VERSION})")
    if missing:
        return missing
    try:
        from transformers.integrations.hub_kernels import get_kernel

        get_kernel(KERNELS_REPOSITORY, version=1)
    except Exception as error:  # whatever stops the kernels, the model still loads without them
        return [f"{KERNELS_REPOSITORY} ({type(error).__name__})"]
    return []


def kernel_obstacle(
    device_type: str, capability: tuple[int, int] | None, missing: Sequence[str], bytes_per_value: int = 2
) -> str:
    """Return why the kernels cannot be used on a device, as a clause; empty where they can.

    Units: bytes_per_value is the size of an activation.
    """
    if device_type not in MIN_TRITON_VERSIONS:
        return f"the kernels need a CUDA or XPU device and this is {device_type}"
    if not is_capable(device_type, capability):
        needs, got = (".".join(map(str, numbers)) for numbers in (MIN_CUDA_CAPABILITY, capability or ()))
        return f"the kernels need compute capability {needs} and this device has {got or 'none'}"
    if bytes_per_value != COMPUTE_BYTES:
        return f"the kernels compute in 16 bits and not in {8 * bytes_per_value}"
    return f"the kernels lack {' and '.join(missing)}" if missing else ""
