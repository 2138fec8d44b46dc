"""Atomic writes: a file appears under its name when it is complete and on disk, or not at all.

Every write goes to a hidden `*.partial` file beside the target, which is then renamed. Knows nothing of the
content of files.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lens.errors import LensError, SettingError

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_HELD_S = 3.0
"""Seconds that the workers of a killed run may still hold its folder."""


class FileWriteError(LensError, OSError):
    """A file that cannot be written; nothing of it is left. The cause is the OSError."""


class DiskFullError(FileWriteError):
    """A file that does not fit on the disk; nothing of it is left."""


def config_folder() -> Path:
    """Return the folder of a person's own files: LENS_CONFIG, or `lens` in the user's folder of settings."""
    if base := os.environ.get("LENS_CONFIG"):
        return Path(base)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lens"


def cache_folder() -> Path:
    """Return the folder for cached results: LENS_CACHE, or `lens` in the user's cache folder."""
    if base := os.environ.get("LENS_CACHE"):
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lens"


def write_atomic(path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666) -> Path:
    """Write the file at `path`, replacing an older one, and return the path.

    `mode` are the permissions of the file, which the umask of the process reduces.
    Raises: FileWriteError; DiskFullError.
    """

    def open_with_mode(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    with replace_file(path) as partial, open(partial, "xb", opener=open_with_mode) as file:
        write(file)
    return path


def write_bytes_atomic(path: Path, content: bytes, mode: int = 0o666) -> Path:
    """Write `content` as the file at `path`, replacing an older one, and return the path.

    Raises: FileWriteError; DiskFullError.
    """
    return write_atomic(path, lambda file: file.write(content), mode)


def write_unique(folder: Path, stem: str, suffix: str, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file under a free name and return its path: stem, or stem-2, stem-3 ... where names are taken.

    No file is ever replaced, also when two processes write at the same time.
    Raises: FileWriteError; DiskFullError.
    """
    with _partial_file(folder / f"{stem}{suffix}") as partial:
        with open(partial, "xb") as file:
            write(file)
        _flush_to_disk(partial)
        for number in count(1):
            path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
            try:
                os.link(partial, path)  # unlike a rename, fails where the name is taken
                return path
            except FileExistsError:
                continue
            except OSError:  # a file system without hard links
                if not path.exists():
                    os.replace(partial, path)
                    return path
    raise AssertionError("unreachable")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` at the end of the block.

    For libraries that write to a path of their own; `write_atomic` is simpler where a file object will do.
    Raises: FileWriteError; DiskFullError.
    """
    with _partial_file(path) as partial:
        yield partial
        _flush_to_disk(partial)
        # Of two processes that write the same file the last one wins.
        os.replace(partial, path)


def remove_partials(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder that no process writes into any more."""
    for partial in folder.rglob("*.partial"):
        partial.unlink(missing_ok=True)


@contextmanager
def remove_on_failure(folder: Path) -> Iterator[None]:
    """Remove `folder` if the block fails, with the folders above it that were not there before."""
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if missing:
            shutil.rmtree(folder, ignore_errors=True)
        for path in missing:
            with suppress(OSError):  # something else may be in it
                path.rmdir()
        raise


def apply_umask(folder: Path) -> None:
    """Give the files in a folder and below it the permissions that a new file has.

    For libraries that write files for their owner alone, as safetensors does.
    """
    with _partial_file(folder / "any") as probe:
        probe.touch()  # reading the umask itself would change it for other threads for a moment
        mode = probe.stat().st_mode
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(mode)


@contextmanager
def hold_folder(folder: Path, setting: str) -> Iterator[None]:
    """Hold a folder, made if needed, for the length of a block: no other run writes into it meanwhile.

    A block that fails leaves no empty folder.
    Raises: SettingError where another process holds it.
    """
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, SettingError(
            setting, str(folder), "a folder that no other run is writing into",
            "Wait until the other one ends, or choose another folder.",
        ))  # fmt: skip
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):  # something is in it
                path.rmdir()
        raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int, refusal: SettingError) -> None:
    """Lock an open folder, or raise the error where another process holds it."""
    import fcntl  # not on Windows

    gives_up_at = time.monotonic() + MAX_HELD_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > gives_up_at:
                raise refusal from error
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return None


def check_writable(folder: Path, setting: str = "--out") -> None:
    """Raise a SettingError where a folder can be neither written to nor created; create nothing yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SettingError(setting, str(folder), "a folder", f"The file {existing} is in the way.")
    probe = existing / f".lens-{uuid4().hex}.partial"
    try:
        probe.mkdir()  # permissions alone do not tell, for root or in /proc
        probe.rmdir()
    except OSError as error:
        needs = f"a folder you may write to ({error.strerror or error})"
        raise SettingError(setting, str(folder), needs, "Choose another.") from error


@contextmanager
def _partial_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, which is created; remove what is there at the end."""
    # A name of its own for every write, and a short one: `path` may be as long as a name can be.
    partial = path.parent / f".lens-{uuid4().hex}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        if isinstance(error, LensError) or not _is_of_write(error, partial):
            raise
        message = f"Cannot write {path}: {error.strerror or error}."
        if error.errno in DISK_FULL_ERRNOS:
            remedy = "Free some space and run the same command again; files that are complete stay."
            raise DiskFullError(f"{message} {remedy}") from error
        raise FileWriteError(message) from error
    finally:
        with suppress(OSError):  # the folder may not exist, which is an error of its own
            partial.unlink()


def _is_of_write(error: OSError, partial: Path) -> bool:
    """Return whether an error is about the file that is written, not about another that was read for it."""
    return error.filename is None or Path(error.filename) in (partial, *partial.parents)


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
