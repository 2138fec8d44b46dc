"""The process of the command: logging to stderr, signals, and quiet imports of libraries.

If another program calls `main`, its modules, warnings and signals stay as they are.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper

from lens.library_logs import quiet_loggers

OPTIONAL_PACKAGES = ("torchao", "gguf", "peft")
LIBRARIES = ("transformers", "diffusers", "torchao", "huggingface_hub", "peft", "accelerate")
EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass
class CommandState:
    """State of a call of the command."""

    is_own: bool = False
    """Whether the process runs only the command, not another program that calls it."""
    is_debugging: bool = False
    """Whether tracebacks and the libraries' log messages are shown (--debug, LENS_DEBUG=1)."""


command_state = CommandState()


@contextmanager
def command_session(is_own: bool) -> Iterator[CommandState]:
    """Log to stderr, one line per entry, for the duration of a call of the command."""
    command_state.is_own = is_own
    command_state.is_debugging = os.environ.get("LENS_DEBUG", "0") not in ("", "0")
    logger = logging.getLogger("lens")
    previous = logger.level, logger.propagate
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lens: %(message)s"))
    handler.setLevel(logging.DEBUG if command_state.is_debugging else logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(handler.level)
    logger.propagate = False
    if is_own:
        signal.signal(signal.SIGTERM, _exit_on_sigterm)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be text in UTF-8
    try:
        yield command_state
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous[0])
        logger.propagate = previous[1]


def prepare_libraries(needed: Collection[str] = ()) -> None:
    """Make imports of libraries fast and quiet; call it before torch is imported.

    diffusers imports every optional package that is installed, which takes 0.7 s of 4.4 s and logs kernels
    that do not load. Packages that are not `needed` are hidden, so that they look as if not installed.
    """
    if not command_state.is_own:
        return
    for package in OPTIONAL_PACKAGES:
        if package not in needed and package not in sys.modules:
            sys.modules[package] = None  # type: ignore[assignment]
    if command_state.is_debugging:
        return
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.simplefilter("ignore")
    quiet_loggers()
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _exit_on_sigterm(*_: object) -> None:
    raise SystemExit(EXIT_TERMINATED)  # an exception, so that temporary files are removed
