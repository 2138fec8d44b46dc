"""Errors that a person can act on: which setting, what it is, what it needs, what to do.

The command turns any LensError into one line on stderr and exit status 2; libraries never print or exit.
Knows nothing of torch, files or the command line.
"""

from typing import Any


class LensError(Exception):
    """Anything that the caller can mend; the message alone says how. Whole in another process too."""

    def __reduce__(self) -> tuple[Any, ...]:
        # As an exception does, it would be made anew from its message alone, which is not what some take.
        return _rebuild_error, (type(self), self.args, self.__dict__)


def _rebuild_error(
    error_class: type["LensError"], args: tuple[Any, ...], attributes: dict[str, Any]
) -> "LensError":
    error = error_class.__new__(error_class, *args)
    error.__dict__.update(attributes)
    return error


def first_line(error: BaseException) -> str:
    """Return the first line with text of an error's message, without its full stop, or the error's class."""
    lines = (line.strip().rstrip(".") for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


class SettingError(LensError, ValueError):
    """A setting the user can fix: which one, what it is, what it needs, what to do."""

    def __init__(self, setting: str, got: object, needs: str, fix: str = ""):
        super().__init__(f"{setting} is {got!r}, but it needs {needs}. {fix}".strip())
        self.setting = setting


class MissingExtraError(LensError):
    """An optional package that is not installed: what needs it, the package, and the extra that brings it."""

    def __init__(self, purpose: str, package: str, extra: str):
        install = f'.venv/bin/pip install -c constraints.txt ".[{extra}]"'
        super().__init__(f"{purpose} needs the package {package}. In a clone of Lens, run: {install}")
        self.package = package


class ShapeError(LensError, ValueError):
    """Tensors that do not fit each other, or a size that the model cannot work at."""


class CheckpointError(LensError, ValueError):
    """A file of weights that is missing, damaged, refused, or of another model."""


class MemoryNeedError(LensError, MemoryError):
    """A load or a run that will not fit; the message carries what it needs and what is there."""


class NonFiniteError(LensError, ArithmeticError):
    """A loss or gradient that stopped being a number; weights are unchanged."""


class GenerationCancelledError(LensError):
    """The caller stopped the work through a callback."""


class QueueFullError(LensError):
    """There is no room for another request; `retry_after_s` says when to ask again."""

    def __init__(self, message: str, retry_after_s: float):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(LensError):
    """The server finishes what it has and takes nothing more on."""


class DeadlineError(LensError):
    """A picture could not be there in the time that was given."""


class ModerationError(LensError):
    """A prompt or a picture that the operator's policy refuses; `reason` may be told to who asked for it.

    `record` finds the refusal in the audit file; `is_unavailable` says that nobody could be asked whether it
    is allowed, so that it may be another time.
    """

    def __init__(self, what: str, reason: str, by: str, record: str, is_unavailable: bool = False):
        super().__init__(f"The {what} is refused: {reason} (record {record})")
        self.what, self.reason, self.by, self.record = what, reason, by, record
        self.is_unavailable = is_unavailable
