"""The memory that weights take, the memory that is free, and where MXFP4 can be used."""

import importlib.util
import inspect
import re

import pytest
import torch
from transformers.integrations.mxfp4 import replace_with_mxfp4_linear
from transformers.quantizers.quantizer_mxfp4 import Mxfp4HfQuantizer

from lens.errors import MemoryNeedError
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.memory import (
    expected_memory,
    is_out_of_memory,
    mxfp4_plan,
    mxfp4_plan_for_device,
    text_encoder_bytes,
)
from lens.models.quantized.mxfp4 import (
    KERNELS_REPOSITORY,
    MIN_CUDA_CAPABILITY,
    MIN_TRITON_VERSIONS,
    missing_kernels,
)

CONFIGS = {"transformer": LENS_DENOISER, "text_encoder": GPT_OSS_20B, "vae": FLUX2_VAE}


def test_memory_is_that_of_the_weights():
    plain = expected_memory(CONFIGS, "bfloat16")
    assert plain["transformer"] == 2 * 4_104_225_152 and plain["text_encoder"] == 2 * 20_914_757_184
    assert expected_memory({"transformer": LENS_DENOISER}, "float32")["transformer"] == 4 * 4_104_225_152
    # By hand: a block has 16 d^2 of qkv and output plus 6 d h of MLP in int8; the rest stays in bfloat16.
    d, h = 1536, 4096
    quantised = 48 * (8 * d * d + 6 * d * h)
    scales = 48 * (2 * 3 * d + 2 * d + 2 * (2 * h + d))
    wanted = quantised + 2 * (4_104_225_152 - quantised) + 2 * scales
    assert expected_memory(CONFIGS, quantization="int8")["transformer"] == wanted
    assert expected_memory(CONFIGS, quantization="int8")["vae"] == plain["vae"]


def test_the_released_encoder_takes_13_gb_in_mxfp4_and_42_dequantised():
    # 20,914,757,184 parameters, of which 19,110,297,600 are in the matrices of the experts.
    assert text_encoder_bytes(GPT_OSS_20B, 2, is_mxfp4=False) == 2 * 20_914_757_184
    assert text_encoder_bytes(GPT_OSS_20B, 2, is_mxfp4=True) == 2 * 1_804_459_584 + 19_110_297_600 * 17 // 32


def plan(**changes):
    settings = {
        "device_type": "cuda",
        "capability": (8, 9),
        "missing": [],
        "free_bytes": 24 * 10**9,
    } | changes
    return mxfp4_plan(GPT_OSS_20B, **settings)


@pytest.mark.parametrize(
    "changes", [{"capability": (7, 5)}, {"capability": (10, 0)}, {"device_type": "xpu", "capability": None}]
)
def test_mxfp4_is_computed_natively_where_the_kernels_are(changes):
    here = plan(**changes)
    assert here.how == "native"
    assert here.needed_bytes == text_encoder_bytes(GPT_OSS_20B, 2, is_mxfp4=True)
    assert here.message == "The text encoder takes 13.8 GB in MXFP4."


@pytest.mark.parametrize(
    ("changes", "gigabytes", "reason"),
    [
        ({"device_type": "cpu", "capability": None}, 13.8, "a CUDA or XPU device and this is cpu"),
        ({"capability": (7, 0)}, 13.8, "compute capability 7.5 and this device has 7.0"),
        ({"bytes_per_value": 4}, 17.4, "compute in 16 bits and not in 32"),
        ({"missing": ["the package triton", "the package kernels"]}, 13.8, "lack the package triton and the"),
        ({"free_bytes": 12 * 10**9}, 13.8, "cuda has 12.0 GB free"),
    ],
)
def test_elsewhere_experts_stay_packed_in_any_memory_and_the_reason_is_named(changes, gigabytes, reason):
    here = plan(**changes)
    assert here.how == "packed"
    assert here.message.startswith(f"The text encoder takes {gigabytes} GB, with experts in MXFP4 that are")
    assert reason in here.message
    assert plan(**{"free_bytes": 10**9, **changes}).how == "packed"


def test_experts_are_dequantized_only_if_asked():
    here = plan(is_dequantized=True, free_bytes=None)
    assert here.how == "dequantized" and here.needed_bytes == 2 * 20_914_757_184
    assert here.message == "The text encoder takes 41.8 GB dequantized to 16 bits, as asked."
    with pytest.raises(MemoryNeedError, match=r"41\.8 GB .* cuda has 24\.0 GB free.*packed.*prompt_embeds"):
        plan(is_dequantized=True)


def test_a_machine_names_all_that_its_kernels_lack():
    missing = missing_kernels("xpu")
    for package in ("triton", "kernels"):
        if importlib.util.find_spec(package) is None:
            assert any(f"package {package} (at least" in one for one in missing)
    assert mxfp4_plan_for_device(GPT_OSS_20B, "cpu").how == "packed"


def test_the_requirements_of_the_kernels_are_those_of_transformers():
    checked = inspect.getsource(Mxfp4HfQuantizer.validate_environment)
    capabilities = re.findall(r"compute_capability >= \((\d+), (\d+)\)", checked)
    assert [tuple(map(int, pair)) for pair in capabilities] == [MIN_CUDA_CAPABILITY]
    xpu, cuda, _cpu = re.findall(r'is_triton_available\("([\d.]+)"\)', checked)
    assert {"cuda": cuda, "xpu": xpu} == MIN_TRITON_VERSIONS
    assert KERNELS_REPOSITORY in inspect.getsource(replace_with_mxfp4_linear)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("Tried to allocate an image too many"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_known_by_its_kind_or_its_message(error, is_memory):
    assert is_out_of_memory(error) == is_memory
