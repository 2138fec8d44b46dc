"""Generators and noise: the same everywhere, and independent of the batch."""

import pytest
import torch
from torch import Generator

from lens.core.noise import draw_noise, generator_for
from lens.errors import SettingError


def test_the_same_four_values_give_the_same_numbers_in_any_process():
    # Fixed numbers: a change here changes every image and every resumed run.
    assert generator_for(7, "noise", step=3, item=2).initial_seed() == 7406212620289231476


def test_each_of_the_four_values_matters():
    one_changed = [(8, "noise", 3, 2), (7, "times", 3, 2), (7, "noise", 4, 2), (7, "noise", 3, 3)]
    alike = [(7, "noise", 2, 3), (7, "noise", 32, 0), (73, "noise", 0, 2)]
    draws = [(7, "noise", 3, 2), *one_changed, *alike]
    assert len({generator_for(*values).initial_seed() for values in draws}) == 8


def test_an_image_drawn_in_a_batch_is_the_one_drawn_alone():
    batch = draw_noise((3, 5, 2), [generator_for(1, "image", item=item) for item in range(3)])
    alone = draw_noise((1, 5, 2), [generator_for(1, "image", item=2)])
    assert torch.equal(batch[2:], alone)
    assert not torch.equal(batch[0], batch[1])


def test_one_generator_draws_the_whole_batch_and_none_draws_from_the_global_one():
    whole = draw_noise((3, 5), Generator().manual_seed(4))
    assert torch.equal(whole, torch.randn(3, 5, generator=Generator().manual_seed(4)))
    torch.manual_seed(4)
    assert torch.equal(draw_noise((3, 5)), whole)


def test_a_smaller_dtype_rounds_the_same_draw():
    exact = draw_noise((3, 5), Generator().manual_seed(4))
    half = draw_noise((3, 5), Generator().manual_seed(4), dtype=torch.bfloat16)
    assert torch.equal(half, exact.bfloat16())


def test_a_list_of_another_length_is_refused():
    with pytest.raises(SettingError, match=r"a list of 2.*one generator for each of 3 images"):
        draw_noise((3, 5), [Generator(), Generator()])
