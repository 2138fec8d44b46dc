"""Learning rates by hand, which weights go where, and Muon against a singular value decomposition."""

import math

import pytest
import torch
from torch import nn

from lens.train.muon import Muon, orthogonalize
from lens.train.optimizer import build_optimizers, lr_at
from lens.train.settings.run import OptimizerSettings


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.conv = nn.Conv2d(2, 3, 3)
        self.linear = nn.Linear(5, 3)
        self.frozen = nn.Linear(5, 2).requires_grad_(False)


def test_the_rate_warms_up_in_a_line_from_one_part_of_it():
    settings = OptimizerSettings(lr=0.8, warmup_steps=4)
    assert [lr_at(step, 10, settings) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_the_cosine_is_whole_after_warm_up_half_at_the_middle_and_a_fiftieth_at_the_end():
    settings = OptimizerSettings(lr=1.0, warmup_steps=2, schedule="cosine")
    whole, middle, end, past = (lr_at(step, 12, settings) for step in (2, 7, 12, 99))
    assert (whole, middle, end, past) == pytest.approx((1.0, 0.51, 0.02, 0.02))
    assert lr_at(4, 12, settings) == pytest.approx(0.02 + 0.98 * (1 + math.cos(0.2 * math.pi)) / 2)


def test_every_trainable_parameter_has_one_optimizer_and_frozen_ones_none():
    net = Net()
    optimizers = build_optimizers(net, OptimizerSettings(lr=1e-3, muon_lr=0.02, weight_decay=0.1))
    adam, muon = optimizers.optimizers
    assert isinstance(muon, Muon)
    groups = [(type(part).__name__, group) for part in (adam, muon) for group in part.param_groups]
    moved_by = {
        name: [
            (kind, group["weight_decay"])
            for kind, group in groups
            if any(one is parameter for one in group["params"])
        ]
        for name, parameter in net.named_parameters()
    }
    assert moved_by == {
        "table.weight": [("AdamW", 0.1)],
        "conv.weight": [("Muon", 0.1)],
        "conv.bias": [("AdamW", 0.0)],
        "linear.weight": [("Muon", 0.1)],
        "linear.bias": [("AdamW", 0.0)],
        "frozen.weight": [],
        "frozen.bias": [],
    }


def test_both_optimizers_follow_one_schedule_in_their_own_ratio():
    optimizers = build_optimizers(Net(), OptimizerSettings(lr=1e-3, muon_lr=0.02))
    optimizers.set_lr(5e-4)
    adam, muon = (part.param_groups[0]["lr"] for part in optimizers.optimizers)
    assert (optimizers.lr, adam, muon) == pytest.approx((5e-4, 5e-4, 0.01))


@pytest.mark.parametrize("shape", [(5, 13), (13, 5), (7, 7)])
def test_orthogonalised_matrices_keep_their_singular_vectors_and_bring_values_near_one(shape):
    matrix = normal(*shape, seed=0)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    values = u.mT @ orthogonalize(matrix) @ vh.mT
    off_diagonal = values - torch.diag(values.diagonal())
    assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.3)).all(), values.diagonal()
    assert off_diagonal.abs().max() < 0.1, "bfloat16 leaves a few hundredths"


def test_a_first_muon_step_is_the_orthogonal_gradient_scaled_by_the_shape():
    weight = nn.Parameter(torch.zeros(8, 3))
    optimizer = Muon([weight], lr=0.1, momentum=0.9)
    weight.grad = normal(8, 3, seed=1)
    direction = orthogonalize(
        weight.grad * (1 - 0.9**2)
    )  # Nesterov: a tenth of g, then nine tenths of the way
    optimizer.step()
    torch.testing.assert_close(weight.detach(), -0.1 * (8 / 3) ** 0.5 * direction, atol=2e-3, rtol=2e-2)


def test_muon_decays_weights_apart_from_the_gradient():
    weight = nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.zeros(2, 3)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 3), 0.95))
