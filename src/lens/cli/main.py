"""The `lens` command: its subcommands, and the one place that turns an error into an exit status.

Results go to stdout, everything else to stderr. Neither this module nor the modules of the subcommands import
heavy packages; a subcommand loads them once its arguments are valid.
"""

import difflib
import re
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperGroup
from typer.models import ArgumentInfo

from lens.cli.ablate import ablate
from lens.cli.convert import convert
from lens.cli.data import data
from lens.cli.evaluate import evaluate
from lens.cli.generate import generate
from lens.cli.generation.grid import grid
from lens.cli.info import info
from lens.cli.models import models
from lens.cli.process import EXIT_TERMINATED, command_session, command_state
from lens.cli.reasoner import reasoner
from lens.cli.rl import rl
from lens.cli.serve import keys, serve
from lens.cli.train import train
from lens.cli.verify import verify
from lens.errors import LensError, SettingError

EXIT_FAILED = 2
EXIT_INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
"""The class of all mistakes in arguments, which typer keeps in a private module."""
OPTIONS_OF_OTHERS = {
    "guidance": "--cfg", "guidance-scale": "--cfg", "cfg-scale": "--cfg", "scale": "--cfg",
    "negative-prompt": "--negative", "sampler": "--solver", "scheduler": "--solver",
    "num-inference-steps": "--steps", "num-images": "--count", "num-images-per-prompt": "--count",
    "batch-size": "--count", "n-samples": "--count", "output": "--out", "outdir": "--out",
    "output-dir": "--out", "ratio": "--aspect-ratio", "ckpt": "--model", "checkpoint": "--model",
    "image": "--init-image", "input": "--init-image", "denoise": "--strength", "w": "--width",
    "h": "--height", "W": "--width", "H": "--height", "config": "--set",
}  # fmt: skip
"""Options that other programs have, each with what Lens calls it."""


class _Commands(TyperGroup):
    """The commands of `lens`; any other word is told what to do with it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise LensError(_unknown_command_message(args[0], list(self.commands)))
        return super().resolve_command(ctx, args)


def _unknown_command_message(word: str, commands: Collection[str]) -> str:
    near = difflib.get_close_matches(word, commands, n=1, cutoff=0.65)
    if near:
        return f"There is no command {word!r}. Did you mean `lens {near[0]}`?"
    verb, name = ("look at it", "info") if Path(word).exists() else ("draw it", "generate")
    return f"There is no command {word!r}. To {verb}, run: lens {name} {shlex.quote(word)}"


app = typer.Typer(
    name="lens",
    cls=_Commands,
    help='Lens generates images from text. Start with: lens generate "a red apple on a blue background"',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _in_own_words(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose errors call a setting of the library by its own option or argument.

    A setting of a file keeps its name: an option that is not given decides nothing.
    """
    names: dict[str, tuple[str, str]] = {}
    for name, parameter in signature(command).parameters.items():
        declared = next((one for one in get_args(parameter.annotation) if hasattr(one, "param_decls")), None)
        # In an annotation the first name takes the place of the default.
        words = [getattr(declared, "default", None), *(getattr(declared, "param_decls", None) or ())]
        options = [one for one in words if isinstance(one, str) and one.startswith("--")]
        is_argument = isinstance(declared, ArgumentInfo)
        if is_argument:
            options = [declared.metavar or name.upper()]
        options = options or [f"--{name.replace('_', '-')}"]
        names.setdefault(name.removesuffix("s"), (name, options[0]))
        names |= {one.lstrip("-").replace("-", "_").lower(): (name, one) for one in options}
        names[name] = name, options[0]

    @wraps(command)
    def run(*args: Any, **values: Any) -> None:
        try:
            command(*args, **values)
        except SettingError as error:
            name, shown = names.get(error.setting, ("", ""))
            if values.get(name) not in (None, [], False):
                error.rename(shown)
            raise

    return run


for command in (generate, grid, models, info, convert, verify, ablate, serve):
    app.command()(_in_own_words(command))
for group in (train, data, rl, evaluate):
    for registered in group.registered_commands:
        if registered.callback is not None:
            registered.callback = _in_own_words(registered.callback)
app.add_typer(train, name="train")
app.add_typer(data, name="data")
app.add_typer(rl, name="rl")
app.add_typer(evaluate, name="eval")
app.add_typer(reasoner, name="reasoner")
app.add_typer(keys, name="keys")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; a LensError is printed as one line, with status 2."""
    with command_session(is_own=arguments is None):
        try:
            command = typer.main.get_command(app)
            given = None if arguments is None else list(arguments)
            status = command.main(args=given, prog_name="lens", standalone_mode=False) or 0
            _print_stop(status)
            return status
        except UsageError as error:
            if message := _usage_message(error):
                print(f"lens: {message}", file=sys.stderr)
            return EXIT_FAILED
        except SystemExit as exit_request:
            status = exit_request.code if isinstance(exit_request.code, int) else EXIT_FAILED
            _print_stop(status)
            return status
        except LensError as error:
            if command_state.is_debugging:
                raise
            print(f"lens: {' '.join(str(error).split())}", file=sys.stderr)
            return EXIT_FAILED
        except OSError as error:
            if command_state.is_debugging or error.filename is None:
                raise
            print(f"lens: {error.filename} cannot be used: {error.strerror}.", file=sys.stderr)
            return EXIT_FAILED
        except KeyboardInterrupt:
            _print_stop(EXIT_INTERRUPTED)
            return EXIT_INTERRUPTED


def _usage_message(error: Any) -> str:
    """Return a mistake in the arguments as one line; empty where the help was printed instead."""
    path = error.ctx.command_path if error.ctx else "lens"
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError":
        return ""
    if kind == "NoSuchOption":
        return f"{error.option_name} is no option of {path}. {_near_option(error)}See `{path} --help`."
    if hasattr(error.__cause__, "errors"):  # of pydantic, which parses the values of options
        from lens.config import needs_of

        problem = error.__cause__.errors()[0]
        needs = re.sub(r"^.* is not (one of .*)$", r"\1", needs_of(problem))
        got = repr(problem["input"])
        return f"{_name_of(error.param)} is {got}, but it needs {needs}. See `{path} --help`."
    text = " ".join(error.format_message().split())
    if kind == "MissingParameter" and error.param is not None:
        text = f"{_name_of(error.param)} is missing"
    elif match := re.fullmatch(r"Option '(.+)' requires an argument\.", text):
        text = f"{match[1]} needs a value"
    return f"{text.rstrip('.?')}{'?' if text.endswith('?') else '.'} See `{path} --help`."


def _name_of(parameter: Any) -> str:
    """Return what people type for a parameter: the option, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return (parameter.metavar or parameter.name).upper()
    return next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])


def _near_option(error: Any) -> str:
    """Return a sentence with the option that was probably meant; empty if none is near."""
    typed = error.option_name.lstrip("-")
    names = [name for one in error.ctx.command.params for name in one.opts if name.startswith("--")]
    if typed in ("prompt", "p") and error.ctx.command.name == "generate":
        return 'A prompt needs no option: lens generate "a red apple". '
    known = {name.lstrip("-"): name for name in names}
    near = [name for name in (OPTIONS_OF_OTHERS.get(typed),) if name in names]
    near += [name for bare, name in known.items() if len(typed) > 1 and bare.startswith(typed)]
    # Without the dashes, which all options have in common.
    near += [known[bare] for bare in difflib.get_close_matches(typed, known, cutoff=0.75)]
    return f"Did you mean {near[0]}? " if near else ""


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
