"""`lens convert SOURCE TARGET --format FORMAT`: conversion of weights between published layouts."""

from pathlib import Path
from typing import Annotated

import typer

from lens.models.checkpoints.convert import FORMATS

SourceArgument = Annotated[
    Path, typer.Argument(help="File of weights, or folder in diffusers layout.", show_default=False)
]
TargetArgument = Annotated[
    Path, typer.Argument(help="File or folder to write; must not exist.", show_default=False)
]
LayoutOption = Annotated[
    str, typer.Option("--format", help="; ".join(f"{name}: {what}" for name, what in FORMATS.items()))
]


def convert(source: SourceArgument, target: TargetArgument, layout: LayoutOption) -> None:
    """Convert weights to another layout; print the path. Checks every tensor, overwrites nothing."""
    from lens.cli.process import prepare_libraries
    from lens.models.checkpoints.convert import convert as write_converted

    prepare_libraries(needed={"gguf", "peft"})
    print(write_converted(source, target, layout))
