"""The formula of operations against a counter that watches every product, and against the paper's bill."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lens.train.cost.flops import forward_flops, model_flops_utilization, training_flops

sys.path.insert(0, str(Path(__file__).parents[2]))
from tiny_models import TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser


def counted(denoiser, h: int, w: int, num_text: int) -> int:
    # The products of the fused kernel would not be seen.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        denoiser(
            torch.zeros(1, h * w, TOKEN_CHANNELS), [torch.zeros(1, num_text, TEXT_WIDTH)] * 4,
            timestep=torch.tensor([0.5]), img_shapes=[(1, h, w)],
        )  # fmt: skip
    return counter.get_total_flops()


@pytest.mark.parametrize(("h", "w", "num_text", "num_layers"), [(3, 5, 7, 3), (8, 2, 1, 1), (4, 4, 11, 2)])
def test_the_formula_counts_what_is_multiplied(h, w, num_text, num_layers):
    denoiser = tiny_denoiser(num_layers=num_layers).eval()
    with torch.no_grad():
        assert forward_flops(denoiser.config, h * w, num_text) == counted(denoiser, h, w, num_text)


def test_backward_costs_twice_what_forward_does_where_all_weights_are_trained():
    denoiser = tiny_denoiser().train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        velocity = denoiser(
            torch.zeros(1, 15, TOKEN_CHANNELS), [torch.zeros(1, 7, TEXT_WIDTH)] * 4,
            timestep=torch.tensor([0.5]), img_shapes=[(1, 3, 5)], return_dict=False,
        )[0]  # fmt: skip
        velocity.sum().backward()
    # The inputs need no gradient, and attention's backward makes its scores once more: within a tenth.
    assert counter.get_total_flops() == pytest.approx(training_flops(denoiser.config, 15, 7), rel=0.1)


def test_the_papers_two_stages_are_of_the_order_of_its_bill():
    from lens.models.denoiser import LensTransformer2DModel

    with torch.device("meta"):
        config = LensTransformer2DModel().config
    low = 400_000 * 3072 * training_flops(config, 1024, 512)
    mixed = 400_000 * 128 * 24 * training_flops(config, 1024, 512)
    assert low + mixed == pytest.approx(3.8e22, rel=0.15)  # spec, section 8; buckets cost nearly alike
    assert model_flops_utilization(3.8e22, 192_000 * 3600, 312e12) == pytest.approx(0.176, abs=0.001)
