"""The denoiser compiled for all buckets, and as a package of AOTInductor, in two minutes.

Run by `LENS_SLOW_TESTS=1 python -m pytest tests/slow/test_compile.py -rs`.
"""

import os

import pytest
import torch
from tiny_models import CAPTURED_LAYERS, TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser
from torch._dynamo.testing import CompileCounter

from lens.core.resolution import buckets_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("LENS_SLOW_TESTS"),
        reason="NOT TESTED: 27 sizes through the compiler take a minute; set LENS_SLOW_TESTS=1",
    ),
]

TRAINED_BASES = 512, 768, 1024
BUCKETS = [size for base in TRAINED_BASES for size in buckets_for(base).values()]


def inputs(h: int, w: int, num_text: int = 7) -> dict:
    return {
        "hidden_states": torch.randn(1, h * w, TOKEN_CHANNELS),
        "encoder_hidden_states": [torch.randn(1, num_text, TEXT_WIDTH) for _ in CAPTURED_LAYERS],
        "encoder_hidden_states_mask": torch.ones(1, num_text, dtype=torch.bool),
        "timestep": torch.tensor([0.5]), "img_shapes": [(1, h, w)],
    }  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False], ids=["the whole denoiser", "its repeated blocks"])
def test_two_graphs_of_each_module_serve_all_buckets(whole):
    assert len(BUCKETS) == 27
    torch._dynamo.reset()
    counter, denoiser = CompileCounter(), tiny_denoiser()
    compile_it = denoiser.compile if whole else denoiser.compile_repeated_blocks
    compile_it(fullgraph=True, backend=counter, dynamic=True)
    for index, (height, width) in enumerate(BUCKETS):
        assert denoiser(**inputs(height // 16, width // 16, 7 + index % 3)).sample.isfinite().all()
    # The last block has no text to update: it is a module of its own.
    assert counter.frame_count <= (2 if whole else 4)


@torch.no_grad()
def test_a_package_of_aotinductor_computes_what_the_denoiser_computes(tmp_path):
    denoiser, given = tiny_denoiser(), inputs(4, 6)
    exported = torch.export.export(denoiser, (), given)
    path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "denoiser.pt2"))
    packaged = torch._inductor.aoti_load_package(path)
    torch.testing.assert_close(packaged(**given).sample, denoiser(**given).sample, rtol=1e-4, atol=1e-4)
