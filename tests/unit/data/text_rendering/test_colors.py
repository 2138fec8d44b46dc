"""Colours of text are legible on what is behind them."""

import numpy as np

from lens.data.text_rendering.colors import COLOURS, sample_legible_colour


def test_every_flat_colour_has_a_colour_that_can_be_read_on_it():
    rng = np.random.default_rng(0)
    assert all(sample_legible_colour([rgb], rng) for rgb in COLOURS.values())
    assert sample_legible_colour([COLOURS["black"], COLOURS["white"], COLOURS["grey"]], rng) is None
