"""diffusers' own test mixins, imported from a checkout of its sources as the package `diffusers_tests`.

LENS_DIFFUSERS_TESTS names the checkout: the folder that has `tests/models/testing_utils`.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "LENS_DIFFUSERS_TESTS"
CHECKOUT = os.environ.get(VARIABLE)
NOT_TESTED = (
    f"NOT TESTED: diffusers' test mixins are not installed with it; set {VARIABLE} to a checkout of diffusers"
)
PACKAGE = "diffusers_tests"


def mixins(folder: str) -> Any:
    """Return the module of the mixins of `models` or `pipelines`."""
    tests = Path(CHECKOUT or "").expanduser() / "tests"
    if not (tests / folder / "testing_utils").is_dir():
        missing = tests / folder / "testing_utils"
        raise FileNotFoundError(f"{VARIABLE} is {CHECKOUT}, but {missing} does not exist.")
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(tests)]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.{folder}.testing_utils")
