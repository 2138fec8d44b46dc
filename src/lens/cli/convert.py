"""`lens convert SOURCE TARGET --format FORMAT`: conversion of weights between published layouts."""

from pathlib import Path
from typing import Annotated

import typer

from lens.models.checkpoints.conversion.formats import PARTS, describe_formats

SourceArgument = Annotated[
    Path,
    typer.Argument(
        help="File of weights, a component's folder, a whole model's, or a model's name.", show_default=False
    ),
]
TargetArgument = Annotated[
    Path, typer.Argument(help="File or folder to write; must not exist.", show_default=False)
]
LayoutOption = Annotated[str, typer.Option("--format", help=describe_formats())]
PartOption = Annotated[
    str | None,
    typer.Option("--part", help=f"Part of a whole model to convert: {', '.join(PARTS)}.", show_default=False),
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        help="tokenizer.json to store in a text encoder's file, or a folder or file that has one. Default: "
        "the one inside the source or beside it.",
        show_default=False,
    ),
]


def convert(
    source: SourceArgument,
    target: TargetArgument,
    layout: LayoutOption,
    part: PartOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Convert weights to another layout; print the path. Checks every tensor, overwrites nothing.

    Memory holds a piece of one tensor, whatever the size of the model.
    """
    from lens.cli.process import prepare_libraries
    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.models.checkpoints.convert import convert as write_converted
    from lens.models.checkpoints.convert import find_convertible

    find_convertible(source, target, layout, part, tokenizer)  # before libraries load
    prepare_libraries(needed={"gguf", "peft"})
    with ProgressBar(1) as bar:
        written = write_converted(
            source, target, layout, part, tokenizer=tokenizer, on_progress=with_log_lines(bar)
        )
    print(written)
