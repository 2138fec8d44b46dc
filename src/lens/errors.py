"""Errors that users can act on: what is wrong, what is needed, and what to do.

The command prints any LensError as one line on stderr and exits with status 2; the package never prints or
exits elsewhere. Knows nothing of torch, files or the command line.
"""

from typing import Any

MAX_VALUE_CHARACTERS = 500
"""What an error repeats of a value: callers of a server can send a megabyte."""


class LensError(Exception):
    """Base class of errors that the caller can correct; the message says how. It can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is rebuilt from its message alone, which some constructors do not take.
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
    """A setting with a value that is not valid: its name, its value, what it needs, what to do."""

    def __init__(self, setting: str, got: object, needs: str, fix: str = ""):
        shown = repr(got)
        if len(shown) > MAX_VALUE_CHARACTERS:
            shown = f"{shown[:MAX_VALUE_CHARACTERS]}... ({len(shown)} characters)"
        super().__init__(f"{setting} is {shown}, but it needs {needs}. {fix}".strip())
        self.setting = setting

    def rename(self, setting: str) -> None:
        """Call the setting by the name that a surface has for it, such as an option."""
        self.args = (f"{setting}{str(self).removeprefix(self.setting)}",)
        self.setting = setting


class MissingExtraError(LensError):
    """An optional package that is not installed: what needs it, its name, and the extra that installs it."""

    def __init__(self, purpose: str, package: str, extra: str, is_pinned: bool = True):
        pins = "-c constraints.txt " if is_pinned else ""
        install = f'.venv/bin/pip install {pins}".[{extra}]"'
        super().__init__(f"{purpose} needs the package {package}. In a clone of Lens, run: {install}")
        self.package = package


class ShapeError(LensError, ValueError):
    """Tensors whose shapes do not fit each other or the model."""


class CheckpointError(LensError, ValueError):
    """A file of weights that is missing, damaged, refused, or for another model."""


class MemoryNeedError(LensError, MemoryError):
    """A load or a run that does not fit into memory; the message has the need and what is free."""


class NonFiniteError(LensError, ArithmeticError):
    """A loss or gradient that is not finite (the weights are unchanged), or an image (none is written)."""


class GenerationCancelledError(LensError):
    """The caller cancelled the generation through a callback."""


class QueueFullError(LensError):
    """The queue has no room for another request; `retry_after_s` is when to send it again."""

    def __init__(self, message: str, retry_after_s: float):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(LensError):
    """The server is shutting down: it finishes its requests and accepts no more."""

    def __init__(self):
        super().__init__("The server is shutting down and accepts no more requests. Try again soon.")


class DeadlineError(LensError):
    """An image cannot be ready before the deadline of its request."""


class ModerationError(LensError):
    """A prompt or an image that the operator's policy refuses; `reason` may be shown to the caller.

    `record` identifies the refusal in the audit file. `is_unavailable` means that the moderation service did
    not answer, so the same request may be accepted later.
    """

    def __init__(self, what: str, reason: str, by: str, record: str, is_unavailable: bool = False):
        super().__init__(f"The {what} is refused: {reason} (record {record})")
        self.what, self.reason, self.by, self.record = what, reason, by, record
        self.is_unavailable = is_unavailable


class PromptRefusedError(LensError):
    """A prompt that a reasoner refuses, so that nothing is drawn.

    `category` is the one of the operator's policy, None where the model refused by rules of its own. `record`
    identifies the refusal in an audit file, if there is one. `is_unavailable` means that the question whether
    to refuse had no answer, so the same request may be accepted later.
    """

    def __init__(
        self,
        category: str | None,
        reason: str | None = None,
        record: str | None = None,
        is_unavailable: bool = False,
    ):
        where = f" (category {category})" if category else ""
        why = f": {reason.strip().rstrip('.')}" if reason and reason.strip() else ""
        noted = f" (record {record})" if record else ""
        super().__init__(f"The reasoner refuses this prompt{where}{why}. Nothing is drawn.{noted}")
        self.category, self.reason, self.record = category, reason, record
        self.is_unavailable = is_unavailable
