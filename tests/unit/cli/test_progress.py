"""Progress shows on a terminal only, and never on stdout."""

import io

import pytest

from lens.cli.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    def use(stream):
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return use


def run_through(progress: ProgressBar) -> None:
    with progress:
        progress("encoding", 0, 1)
        progress.start_image(2)
        for step in range(1, 4):
            progress("denoising", step, 3)
        progress.print("fox.png")
        progress("decoding", 1, 1)


def test_off_a_terminal_nothing_but_results_is_printed(stderr, capsys):
    stream = stderr(io.StringIO())
    run_through(ProgressBar(3))
    assert stream.getvalue() == ""
    assert capsys.readouterr().out == "fox.png\n"


def test_on_a_terminal_the_stage_and_the_image_number_show_on_stderr(stderr, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = stderr(Terminal())
    run_through(ProgressBar(3))
    assert "decoding 2/3" in stream.getvalue()
    assert capsys.readouterr().out == "fox.png\n"
