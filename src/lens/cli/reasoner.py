"""`lens reasoner`: measures of a reasoner, and the search for its system prompt."""

import typer

reasoner = typer.Typer(help="Measure reasoners, and search system prompts for them.", no_args_is_help=True)
