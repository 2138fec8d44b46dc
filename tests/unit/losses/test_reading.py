"""The reading losses against formulas written out, and what their heads look at."""

import pytest
import torch

from lens.losses.reading import MentionHead, ReadingHead, mention_loss, reading_loss


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_reading_loss_is_the_summed_surprise_of_all_facts_averaged_over_prompts():
    logits = [normal(2, classes, seed=classes) for classes in (3, 5, 4)]
    labels = torch.tensor([[2, 0, 3], [1, 4, 0]])
    surprise = 0.0
    for prompt in range(2):
        for fact, one in enumerate(logits):
            shares = one[prompt].double().exp() / one[prompt].double().exp().sum()
            surprise -= float(shares[labels[prompt, fact]].log())
    assert float(reading_loss(logits, labels)) == pytest.approx(surprise / 2, abs=1e-6)


def test_certain_and_right_logits_have_no_reading_loss():
    labels = torch.tensor([[1, 2], [0, 4]])
    logits = [100 * torch.eye(classes)[labels[:, fact]] for fact, classes in enumerate((3, 5))]
    assert float(reading_loss(logits, labels)) == pytest.approx(0, abs=1e-6)


def test_each_fact_is_read_at_its_own_token_whatever_the_scale_of_the_state():
    torch.manual_seed(0)
    head = ReadingHead(7, tokens=(2, 0, 2), num_classes=(3, 5, 4))
    hidden = normal(2, 6, 7, seed=0)
    logits = head(hidden)
    assert [tuple(one.shape) for one in logits] == [(2, 3), (2, 5), (2, 4)]
    for one, token, linear in zip(logits, (2, 0, 2), head.classifiers, strict=True):
        state = hidden[:, token]
        normed = state / state.square().mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(one, normed @ linear.weight.T + linear.bias)
    elsewhere = hidden.clone()
    elsewhere[:, [1, 3, 4, 5]] += 1
    for one, same, scaled in zip(logits, head(elsewhere), head(3 * hidden), strict=True):
        assert torch.equal(one, same)
        torch.testing.assert_close(one, scaled)


def test_the_mention_loss_is_that_of_the_summed_odds_of_the_tokens_of_a_prompt():
    logits = normal(2, 5, 3, seed=0)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    mentioned = torch.tensor([[1, 0, 0], [0, 1, 1]])
    surprise = 0.0
    for prompt, length in enumerate((5, 2)):
        for value in range(3):
            odds = float(logits[prompt, :length, value].double().exp().sum())
            probability = odds / (1 + odds)
            is_right = probability if mentioned[prompt, value] else 1 - probability
            surprise -= float(torch.tensor(is_right).double().log())
    assert float(mention_loss(logits, mask, mentioned)) == pytest.approx(surprise / 2, abs=1e-5)


def test_tokens_outside_the_prompt_have_no_part_in_the_mention_loss():
    logits = normal(2, 5, 3, seed=0).requires_grad_()
    mask = torch.tensor([[True] * 4 + [False], [True] * 2 + [False] * 3])
    mention_loss(logits, mask, torch.ones(2, 3)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, mask)


def test_one_token_is_enough_to_mention_a_value():
    logits = torch.full((1, 6, 2), -30.0)
    logits[0, 4, 0] = 30
    mask = torch.ones(1, 6, dtype=torch.bool)
    assert float(mention_loss(logits, mask, torch.tensor([[1, 0]]))) == pytest.approx(0, abs=1e-6)
    assert float(mention_loss(logits, mask, torch.tensor([[0, 0]]))) == pytest.approx(30, rel=1e-4)


def test_a_new_mention_head_takes_most_values_for_not_mentioned():
    torch.manual_seed(0)
    logits = MentionHead(7, 11)(normal(2, 5, 7, seed=0))
    assert logits.shape == (2, 5, 11)
    assert float(logits.detach().sigmoid().mean()) < 0.05
