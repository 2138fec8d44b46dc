"""Text features are the outputs of blocks: which blocks run, what padding does, how a prefix is reused."""

import pytest
import torch
from tiny_models import TEXT_WIDTH, tiny_encoder

from lens.errors import SettingError
from lens.models.checkpoints.text_encoder import LensGptOssEncoder


def ids(length: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(0))


def calls_of(encoder: LensGptOssEncoder) -> list[str]:
    """Record which parts run."""
    called: list[str] = []
    parts = {"norm": encoder.model.norm, "head": encoder.lm_head}
    parts |= {f"block {index}": block for index, block in enumerate(encoder.model.layers)}
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    return called


def test_blocks_after_the_last_captured_one_and_the_head_do_not_run():
    encoder = tiny_encoder()
    called = calls_of(encoder)
    features = encoder.text_features(ids(7), None, (3, 0))
    assert called == ["block 0", "block 1", "block 2", "block 3"]
    assert [tuple(one.shape) for one in features] == [(2, 7, TEXT_WIDTH)] * 2
    assert not torch.equal(features[0], features[1])


def test_features_come_in_the_order_asked_for():
    encoder = tiny_encoder()
    first, second = encoder.text_features(ids(7), None, (4, 1))
    again, before = encoder.text_features(ids(7), None, (1, 4))
    assert torch.equal(first, before) and torch.equal(second, again)


def test_padding_on_the_right_leaves_real_tokens_as_they_are():
    encoder, tokens = tiny_encoder(), ids(30)
    mask = torch.ones_like(tokens)
    mask[1, 21:] = 0
    padded = encoder.text_features(tokens, mask, (0, 2, 5))
    alone = encoder.text_features(tokens[1:, :21], None, (0, 2, 5))
    for ours, theirs in zip(padded, alone, strict=True):
        torch.testing.assert_close(ours[1, :21], theirs[0], atol=2e-6, rtol=1e-5)


def test_what_is_under_the_padding_does_not_matter():
    encoder, tokens = tiny_encoder(), ids(12)
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    other = tokens.clone()
    other[1, 5:] = 3
    for ours, theirs in zip(
        encoder.text_features(tokens, mask, (2, 5)), encoder.text_features(other, mask, (2, 5)), strict=True
    ):
        torch.testing.assert_close(ours[1, :5], theirs[1, :5], atol=2e-6, rtol=1e-5)


def test_features_carry_no_gradients():
    assert not tiny_encoder().text_features(ids(3), None, (0,))[0].requires_grad


@pytest.mark.parametrize("layers", [(), (6,), (0, -1)])
def test_a_block_that_is_not_there_is_refused(layers):
    with pytest.raises(SettingError, match="blocks between 0 and 5"):
        tiny_encoder().text_features(ids(3), None, layers)


def test_an_offloading_hook_is_told_before_the_features_are_taken():
    class Hook:
        execution_device = torch.device("cpu")
        calls = 0

        def pre_forward(self, module):
            self.calls += 1

    encoder = tiny_encoder()
    encoder._hf_hook = Hook()
    encoder.text_features(ids(3), None, (0,))
    assert encoder._hf_hook.calls == 1


@pytest.mark.parametrize("num_before", [3, 40])  # the second is longer than what the sliding blocks see
def test_tokens_after_others_that_were_read_before_are_as_in_one_sequence(num_before):
    encoder, tokens = tiny_encoder(), ids(num_before + 9, rows=1)
    assert encoder.config.sliding_window < 40
    whole = encoder.text_features(tokens, None, (0, 2, 5))
    before = encoder.prefill(tokens[:, :num_before], (0, 2, 5))
    for _ in range(2):  # what was read can be used again
        after = encoder.text_features(tokens[:, num_before:], None, (0, 2, 5), before)
        for ours, theirs in zip(after, whole, strict=True):
            torch.testing.assert_close(ours, theirs[:, num_before:], atol=2e-6, rtol=1e-5)
