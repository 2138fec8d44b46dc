"""Progress bar on stderr: stage, share done and image number; silent without a terminal."""

import logging
import sys
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0


class ProgressBar:
    """A line on stderr with the stage of the current image; `print` writes results to stdout."""

    def __init__(self, num_images: int):
        self.num_images = num_images
        self.image_number = 0
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description:<26}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            # Results must reach stdout untouched, so rich may not redirect it.
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("loading", total=None)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def start_image(self, number: int) -> None:
        """Set the image that the following stages belong to, counted from 1."""
        self.image_number = number

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show a stage; has the signature of the pipeline's `on_progress`."""
        if self._bar:
            which = (
                f" {self.image_number}/{self.num_images}" if self.num_images > 1 and self.image_number else ""
            )
            self._bar.update(self._task, description=stage + which, completed=done, total=total)

    def print(self, line: str) -> None:
        """Print a result on stdout without disturbing the bar."""
        if self._bar and sys.stdout.isatty():
            self._bar.stop()
            print(line, flush=True)
            self._bar.start()
        else:
            print(line, flush=True)


def with_log_lines(on_progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Return a progress callback that also logs a line at most every 10 s."""
    logged_at = monotonic()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal logged_at
        on_progress(stage, done, total)
        if monotonic() - logged_at >= LOG_INTERVAL_S:
            logged_at = monotonic()
            logger.info("%s: %d of %d", stage, done, total)

    return report
