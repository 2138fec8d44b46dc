"""The `lens` command: its subcommands, and the one place that turns an error into an exit status.

Results go to stdout, everything else to stderr. Neither this module nor the modules of the subcommands import
heavy packages; a subcommand loads them once its arguments are valid.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from lens.cli.ablate import ablate
from lens.cli.convert import convert
from lens.cli.data import data
from lens.cli.evaluate import evaluate
from lens.cli.generate import generate
from lens.cli.info import info
from lens.cli.models import models
from lens.cli.process import EXIT_TERMINATED, command_session, command_state
from lens.cli.rl import rl
from lens.cli.serve import keys, serve
from lens.cli.train import train
from lens.cli.verify import verify
from lens.errors import LensError

EXIT_FAILED = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="lens",
    help='Lens generates images from text. Start with: lens generate "a red apple on a blue background"',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, models, info, convert, ablate, verify):
    app.command()(command)
app.add_typer(train, name="train")
app.add_typer(data, name="data")
app.add_typer(rl, name="rl")
app.add_typer(evaluate, name="eval")
app.command()(serve)
app.add_typer(keys, name="keys")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; a LensError is printed as one line, with status 2."""
    with command_session(is_own=arguments is None):
        try:
            app(args=None if arguments is None else list(arguments), prog_name="lens")
        except SystemExit as exit_request:
            status = exit_request.code if isinstance(exit_request.code, int) else EXIT_FAILED
            _print_stop(status)
            return status
        except LensError as error:
            if command_state.is_debugging:
                raise
            print(f"lens: {' '.join(str(error).split())}", file=sys.stderr)
            return EXIT_FAILED
        except KeyboardInterrupt:
            _print_stop(EXIT_INTERRUPTED)
            return EXIT_INTERRUPTED
    return 0


def _print_stop(status: int) -> None:
    """Print on stderr which signal ended the command, if one did."""
    if status in (EXIT_INTERRUPTED, EXIT_TERMINATED):
        name = "Ctrl-C" if status == EXIT_INTERRUPTED else "SIGTERM"
        print(f"lens: stopped by {name}.", file=sys.stderr)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print(f"lens {version('lens-t2i')}")
        raise typer.Exit


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    command_state.is_debugging = command_state.is_debugging or debug
