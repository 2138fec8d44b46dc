"""Warnings about a request to a nano model: words it does not know, and sizes it was not trained at.

Only models of the nano world have these checks. They load no model and no torch.
"""

from collections.abc import Sequence

LARGEST, SMALLEST = 1.35, 0.7
"""Areas without a warning, as multiples of those of the largest and of the smallest trained base."""


def is_nano(variant: str) -> bool:
    """Return whether a variant is a model of the nano world."""
    return variant.startswith("nano")


def request_warnings(
    variant: str, trained_bases: Sequence[int], prompt: str, size: tuple[int, int] | None
) -> list[str]:
    """Return what to tell about a prompt and a size (height, width); nothing for models of other worlds."""
    if not is_nano(variant):
        return []
    from lens.nano.vocabulary import vocabulary_warning

    model = f"lens-{variant}"
    about_size = None if size is None else size_warning(model, trained_bases, *size)
    found = (vocabulary_warning(prompt, model) if prompt.strip() else None, about_size)
    return [warning for warning in found if warning is not None]


def size_warning(model: str, trained_bases: Sequence[int], height: int, width: int) -> str | None:
    """Return what to tell about a size that is far from the trained ones, or None."""
    area = height * width
    if SMALLEST * min(trained_bases) ** 2 <= area <= LARGEST * max(trained_bases) ** 2:
        return None
    sizes = [f"{base} x {base}" for base in sorted(trained_bases)]
    trained = f"{', '.join(sizes[:-1])} and {sizes[-1]}" if len(sizes) > 1 else sizes[0]
    is_large = area > max(trained_bases) ** 2
    what = "repeated things" if is_large else "things that are hard to recognise"
    return f"{model} was trained at sizes of about {trained}; {width}x{height} often shows {what}"
