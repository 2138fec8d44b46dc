"""The process that the command runs in: what it says on stderr, and what it keeps libraries from doing.

Where `main` is called from another program, that program's modules, warnings and signals are left alone.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

OPTIONAL_PACKAGES = ("torchao", "gguf", "peft")
LIBRARIES = ("transformers", "diffusers", "torchao", "huggingface_hub", "peft", "accelerate")
EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass
class CommandState:
    """How this call of the command runs."""

    is_own: bool = False
    """Whether the command is the whole process, not a call inside another program."""
    is_debugging: bool = False
    """Whether tracebacks and the libraries' notes are asked for (--debug, LENS_DEBUG=1)."""


command_state = CommandState()


@contextmanager
def command_session(is_own: bool) -> Iterator[CommandState]:
    """Start a call of the command: our log goes to stderr, a line an entry, until the call ends."""
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
    try:
        yield command_state
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous[0])
        logger.propagate = previous[1]


def prepare_libraries(needed: Collection[str] = ()) -> None:
    """Make libraries quick to import and quiet: call before torch is imported.

    diffusers imports optional packages wherever they are installed: 0.7 s of 4.4 s, and notes on kernels that
    do not load. A package that is not `needed` is hidden: whoever looks for it is told "not installed".
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
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _exit_on_sigterm(*_: object) -> None:
    raise SystemExit(EXIT_TERMINATED)  # an exception, so that drafts of files are taken away on the way out
