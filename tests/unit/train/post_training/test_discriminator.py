"""Heads on a frozen denoiser: any size, gradients to the picture alone, and a lesson learned."""

import pytest
import torch
from tiny_models import DENOISER_CONFIG, tiny_denoiser

from lens.errors import SettingError
from lens.losses.distillation import discriminator_loss
from lens.train.post_training.discriminator import DiscriminatorHeads, FeatureHook, middle_blocks


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seen(denoiser, features, tokens, cells):
    text = [normal(len(tokens), 5, 24, seed=6 + layer) for layer in range(4)]
    with features.capture() as kept:
        denoiser(tokens, text, None, torch.full((len(tokens),), 0.4), [(1, *cells)])
    return kept


@pytest.fixture
def watched():
    denoiser = tiny_denoiser()
    denoiser.requires_grad_(False)
    return denoiser, FeatureHook(denoiser, (0, 2))


def fresh_heads() -> DiscriminatorHeads:
    heads = DiscriminatorHeads(DENOISER_CONFIG["inner_dim"], 2, head_dim=5, num_queries=3)
    heads.init_weights(torch.Generator().manual_seed(0))
    return heads


def test_a_logit_a_picture_whatever_its_size_and_zero_at_first(watched):
    denoiser, features = watched
    heads = fresh_heads()
    for cells in ((2, 3), (1, 7), (5, 4)):
        kept = seen(denoiser, features, normal(3, cells[0] * cells[1], 16, seed=0), cells)
        assert [tuple(one.shape) for one in kept] == [(3, cells[0] * cells[1], 32)] * 2
        assert torch.equal(heads(kept), torch.zeros(3))


def test_a_picture_alone_has_the_logit_that_it_has_in_a_batch(watched):
    denoiser, features = watched
    heads = fresh_heads()
    torch.nn.init.normal_(heads.pools[0].judge.weight, generator=torch.Generator().manual_seed(1))
    kept = seen(denoiser, features, normal(3, 6, 16, seed=0), (2, 3))
    alone = heads([one[1:2] for one in kept])
    torch.testing.assert_close(alone, heads(kept)[1:2])
    assert alone.abs() > 0


def test_gradients_reach_the_picture_and_no_weight_of_the_denoiser(watched):
    denoiser, features = watched
    heads = fresh_heads()
    for pool in heads.pools:
        torch.nn.init.ones_(pool.judge.weight)
    tokens = normal(2, 6, 16, seed=0).requires_grad_()
    logits = heads(seen(denoiser, features, tokens, (2, 3)))
    logits.sum().backward()
    assert tokens.grad is not None and tokens.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert all(parameter.grad is not None for parameter in heads.parameters())


def test_outside_its_block_nothing_is_kept(watched):
    denoiser, features = watched
    kept = seen(denoiser, features, normal(1, 6, 16, seed=0), (2, 3))
    denoiser(normal(1, 6, 16, seed=1), [normal(1, 5, 24, seed=2)] * 4, None, torch.ones(1), [(1, 2, 3)])
    assert len(kept) == 2


def test_heads_learn_to_tell_two_kinds_of_pictures(watched):
    denoiser, features = watched
    heads = fresh_heads()
    optimizer = torch.optim.AdamW(heads.parameters(), 0.02, betas=(0.0, 0.9))
    real, student = normal(8, 6, 16, seed=0), 1.5 * normal(8, 6, 16, seed=1)
    kept = [one.detach() for one in seen(denoiser, features, torch.cat([real, student]), (2, 3))]
    for _ in range(60):
        logits = heads(kept)
        loss = discriminator_loss(logits[:8], logits[8:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5, "from 2 log 2 = 1.39 on"


def test_blocks_are_those_in_the_middle_and_unknown_ones_are_refused():
    assert middle_blocks(48) == (12, 24, 36) and middle_blocks(6) == (1, 3, 4) and middle_blocks(2) == (0, 1)
    with pytest.raises(SettingError, match=r"discriminator_blocks is \[1, 3\], but it needs .* below 3"):
        FeatureHook(tiny_denoiser(), (1, 3))
