"""The command as people run it: a process of its own, or a call in this one where cases share the imports."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))


class Ran(NamedTuple):
    """What a run of the command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line on stderr of a run that failed as it should: status 2 and nothing on stdout."""
        assert (self.status, self.out) == (2, ""), self
        assert self.err.count("\n") == 1 and self.err.startswith("lens: "), self.err
        return self.err


@pytest.fixture(scope="session")
def no_progress_bars() -> None:
    """Keep the libraries from telling how far they are, as a process of the command's own does."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, no_progress_bars) -> Path:
    """A whole model folder with random weights that draws at base 64."""
    from tiny_models import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def process(tmp_path) -> Callable[..., Ran]:
    """Run `lens` as a process in an empty folder."""

    def run(*arguments: object, stdin: str = "", **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "lens", *map(str, arguments)],
            input=stdin,
            text=True,
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            timeout=600,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def lens(tmp_path, monkeypatch, capsys) -> Callable[..., Ran]:
    """Call the command in this process, in an empty folder, with nothing to read from stdin."""
    import io

    from lens.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return call
