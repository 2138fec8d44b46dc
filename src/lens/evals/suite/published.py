"""Published rows of the benchmarks, for orientation beside a run. They never share a column with it.

Sources: the Lens report (arXiv 2605.21573), its tables of benchmarks and of reasoners.
"""

from typing import NamedTuple


class PublishedRow(NamedTuple):
    """A row of a published table."""

    model: str
    prompts: str
    """Whether prompts were rewritten, and by what."""
    headline: float
    parts: dict[str, float]


_TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
_METADATA = "rewritten by GPT-5.5, which saw the scorer's metadata"
_AS_PUBLISHED = "as published"
ROWS = {
    "geneval": [
        PublishedRow(
            "Lens", _METADATA, 0.930,
            dict(zip(_TASKS, (0.994, 0.970, 0.909, 0.923, 0.915, 0.868), strict=True)),
        ),
        PublishedRow(
            "Lens-Turbo", _METADATA, 0.914,
            dict(zip(_TASKS, (0.997, 0.947, 0.909, 0.891, 0.895, 0.845), strict=True)),
        ),
        PublishedRow("Lens", "rewritten by GPT-OSS-20B", 0.874, {}),
        PublishedRow("Lens", _AS_PUBLISHED, 0.843, {}),
        PublishedRow("Qwen-Image", "rewritten by GPT-5.5", 0.926, {}),
    ],
    "longtext": [
        PublishedRow("Lens", "rewritten by GPT-5.5", 0.937, {}),
        PublishedRow("Lens", _AS_PUBLISHED, 0.893, {}),
        PublishedRow("Qwen-Image", _AS_PUBLISHED, 0.943, {}),
    ],
    "cvtg": [
        PublishedRow("Lens", "rewritten by GPT-5.5", 0.869, {"ned": 0.951, "clipscore": 0.814}),
        PublishedRow("Lens", _AS_PUBLISHED, 0.849, {"ned": 0.933, "clipscore": 0.796}),
    ],
}  # fmt: skip
