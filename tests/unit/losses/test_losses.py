"""The objectives against closed forms."""

import math

import pytest
import torch

from lens.losses.autoencoder import reconstruction_loss
from lens.losses.flow_matching import flow_matching_loss
from lens.losses.next_token import next_token_loss
from lens.losses.patch_classification import PatchClassificationHead, patch_classification_loss


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_true_velocity_has_no_loss_and_a_known_error_its_square():
    clean, noise, t = normal(2, 3, 5, 7, seed=0), normal(2, 3, 5, 7, seed=1), torch.tensor([0.2, 0.9])
    assert float(flow_matching_loss(lambda x, t: noise - clean, clean, t=t, noise=noise).loss) == 0
    off = torch.tensor([1.0, 3.0])[:, None, None, None]
    loss = flow_matching_loss(lambda x, t: noise - clean + off, clean, t=t, noise=noise).loss
    assert float(loss) == pytest.approx((1 + 9) / 2, rel=1e-5)


def test_the_network_sees_the_point_at_its_own_time_of_the_straight_path():
    clean, noise, t = normal(2, 3, 5, 7, seed=0), normal(2, 3, 5, 7, seed=1), torch.tensor([0.25, 1.0])
    seen = {}

    def velocity(noisy, time):
        seen.update(noisy=noisy, time=time)
        return noisy

    flow_matching_loss(velocity, clean, t=t, noise=noise)
    assert torch.equal(seen["time"], t)
    torch.testing.assert_close(seen["noisy"][0], 0.75 * clean[0] + 0.25 * noise[0])
    torch.testing.assert_close(seen["noisy"][1], noise[1])


def test_reconstruction_sums_its_four_terms():
    pixels = torch.zeros(2, 3, 4, 6)
    decoded = torch.zeros(2, 3, 4, 6)
    decoded[..., 1::2] = 0.5  # every other column: half of the pixels, all of the steps along rows
    mean, logvar = torch.full((2, 5, 1, 1), 2.0), torch.full((2, 5, 1, 1), math.log(0.25))
    loss, terms, _ = reconstruction_loss(pixels, decoded, mean, logvar, edge_weight=0.3, kl_weight=0.01)
    kl = 0.5 * (4 + 0.25 - 1 - math.log(0.25))
    assert float(terms["vae/edges"]) == pytest.approx(0.5)
    assert float(terms["vae/kl"]) == pytest.approx(kl)
    assert float(loss) == pytest.approx(0.25 + 0.125 + 0.3 * 0.5 + 0.01 * kl)
    assert float(terms["vae/psnr_db"]) == pytest.approx(-10 * math.log10(0.125 / 4))


def test_the_next_token_is_learned_at_every_position_that_has_one():
    ids = torch.tensor([[3, 1, 2, 0], [2, 4, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    logits = normal(2, 4, 5, seed=0)
    logp = logits.log_softmax(-1)
    by_hand = -(logp[0, 0, 1] + logp[0, 1, 2] + logp[1, 0, 4]) / 3
    torch.testing.assert_close(next_token_loss(logits, ids, mask).loss, by_hand)


def test_the_patch_classification_loss_is_the_mean_cross_entropy_of_each_kind_of_label():
    torch.manual_seed(0)
    logits = [torch.randn(2, 3, 5), torch.randn(2, 3, 4)]
    labels = [torch.randint(5, (2, 3)), torch.randint(4, (2, 3))]
    surprise = 0.0
    for kind, label in zip(logits, labels, strict=True):
        shares = kind.double().exp() / kind.double().exp().sum(-1, keepdim=True)
        picked = [shares[row, token, label[row, token]] for row in range(2) for token in range(3)]
        surprise -= float(torch.stack(picked).log().mean())
    assert float(patch_classification_loss(logits, labels)) == pytest.approx(surprise, abs=1e-6)


def test_a_new_patch_classification_head_gives_all_classes_equal_probability():
    head = PatchClassificationHead(6, (5, 4))
    head.init_weights()
    things, parts = head(torch.randn(2, 3, 6))
    assert things.shape == (2, 3, 5)
    assert parts.shape == (2, 3, 4)
    loss = patch_classification_loss((things, parts), [torch.zeros(2, 3, dtype=torch.int64)] * 2).item()
    assert loss == pytest.approx(math.log(5) + math.log(4), abs=1e-6)
