"""The memory that weights take, the memory that is free, and where MXFP4 can be used."""

import pytest
import torch

from lens.errors import MemoryNeedError
from lens.models.checkpoints.registry import FLUX2_VAE, GPT_OSS_20B, LENS_DENOISER
from lens.models.memory import check_memory, expected_memory, is_out_of_memory, mxfp4_plan, text_encoder_bytes

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


def test_too_little_memory_says_what_it_takes_what_is_there_and_what_to_do():
    needed = {"transformer": 8_000_000_000, "vae": 200_000_000}
    assert "takes about 9.4 GB on cpu (transformer 8.0, vae 0.2 GB" in check_memory(needed, available=10e9)
    with pytest.raises(
        MemoryNeedError, match=r"about 9.4 GB.*5.0 GB is free. Try --quantize int8.*--offload"
    ):
        check_memory(needed, available=5e9)


def test_the_released_encoder_takes_13_gb_in_mxfp4_and_42_dequantised():
    # 20,914,757,184 parameters, of which 19,110,297,600 are in the matrices of the experts.
    assert text_encoder_bytes(GPT_OSS_20B, 2, is_mxfp4=False) == 2 * 20_914_757_184
    assert text_encoder_bytes(GPT_OSS_20B, 2, is_mxfp4=True) == 2 * 1_804_459_584 + 19_110_297_600 * 17 // 32


def plan(**changes):
    settings = {
        "device_type": "cuda",
        "capability": (9, 0),
        "missing": [],
        "free_bytes": 80 * 10**9,
    } | changes
    return mxfp4_plan(GPT_OSS_20B, **settings)


def test_mxfp4_stays_where_the_kernels_are():
    here = plan()
    assert here.is_native
    assert here.message == "The text encoder takes 13.8 GB in MXFP4."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device_type": "cpu", "capability": None}, "the kernels need a CUDA device and this is cpu"),
        ({"capability": (8, 6)}, "the kernels need compute capability 9.0 and this device has 8.6"),
        ({"missing": ["the package kernels"]}, "the kernels lack the package kernels"),
    ],
)
def test_elsewhere_it_is_dequantised_and_the_reason_is_named(changes, reason):
    here = plan(**changes)
    assert not here.is_native
    assert here.message == f"The text encoder takes 41.8 GB dequantized to 16 bits, as {reason}."


def test_too_little_memory_is_refused_with_the_need_the_reason_and_what_to_do():
    with pytest.raises(MemoryNeedError) as refusal:
        plan(capability=(8, 6), free_bytes=24 * 10**9)
    for part in (
        "takes 41.8 GB",
        "this device has 8.6",
        "cuda has 24.0 GB free",
        "NVFP4 or GGUF",
        "prompt_embeds",
    ):
        assert part in str(refusal.value)
    assert plan(free_bytes=24 * 10**9).is_native
    assert "takes 41.8 GB" in plan(free_bytes=None, capability=(8, 6)).message


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
