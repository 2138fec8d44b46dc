"""Imports of other libraries without their warnings, which are about packages that Lens does not use.

Errors are shown. Knows nothing of what is imported.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("torchao", "torch.utils._pytree")
"""Loggers that warn while they are imported: of kernels for other machines, and of each other's versions."""
VERBOSITY = {"DIFFUSERS_VERBOSITY": "diffusers", "TRANSFORMERS_VERBOSITY": "transformers"}
"""Variables from which a library takes the level of its logger when it is imported, with that logger."""


def quiet_loggers() -> None:
    """Let libraries log errors alone, from their import on."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for variable in VERBOSITY:
        os.environ.setdefault(variable, "error")


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import libraries quietly in the block; afterwards they log as their users have set them."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    fresh = [variable for variable in VERBOSITY if variable not in os.environ]
    known = {name: logging.getLogger(name).level for name in VERBOSITY.values()}
    quiet_loggers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for variable in fresh:
            os.environ.pop(variable, None)
            logger = logging.getLogger(VERBOSITY[variable])
            logger.setLevel(known[logger.name] or (logging.WARNING if logger.level else logging.NOTSET))
