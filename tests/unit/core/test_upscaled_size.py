"""Sizes times a factor, and back."""

from lens.core.resolution import size_before_upscaling, upscaled_size


def test_the_size_before_is_found_again_for_every_factor():
    sizes = [(16, 16), (48, 32), (96, 176), (112, 160), (1376, 768)]
    for factor in (1.1, 1.25, 1.5, 2, 2.7, 4):
        for size in sizes:
            larger = upscaled_size(*size, factor)
            assert all(side % 16 == 0 for side in larger)
            assert size_before_upscaling(*larger, factor) == size
    assert size_before_upscaling(48, 32, None) == (48, 32)
