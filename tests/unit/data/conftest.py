"""Fixtures that tests of several parts of the data engine share."""

from pathlib import Path

import pytest
from PIL import ImageFont


@pytest.fixture(scope="session")
def font_folder(tmp_path_factory) -> Path:
    """A folder with the font that Pillow carries: Latin, and nothing else."""
    folder = tmp_path_factory.mktemp("fonts")
    (folder / "deep").mkdir()
    (folder / "deep" / "carried.ttf").write_bytes(ImageFont.load_default(12).font_bytes)
    (folder / "broken.otf").write_bytes(b"\x00\x01\x00\x00 no font")
    return folder
