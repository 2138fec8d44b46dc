"""`lens verify IMAGE...`: the metadata and provenance of images, checked."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lens.cli.arguments import AsJson
from lens.errors import LensError

if TYPE_CHECKING:
    from lens.serve.safety.verify import ProvenanceReport

ImagesArgument = Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.", show_default=False)]
Trust = Annotated[
    Path | None,
    typer.Option(help="PEM file of trusted certificates; other signatures are rejected.", show_default=False),
]


EXIT_UNSIGNED = 3
"""Marks without a manifest, which anybody can copy or change."""


def verify(images: ImagesArgument, trust: Trust = None, as_json: AsJson = False) -> None:
    """Check metadata, XMP and signature of images; status 2 if one is invalid, 3 if one is unsigned."""
    from lens.serve.safety.verify import read_trust_anchors
    from lens.serve.safety.verify import verify_image as verified

    trusted = None if trust is None else read_trust_anchors(trust)
    objections, has_invalid = [], False
    for path in images:
        try:
            verdict = verified(path, trusted)
        except LensError as error:
            if len(images) == 1:
                raise
            objections.append(str(error))
            has_invalid = True
            if as_json:
                failure = {"picture": str(path), "holds": False, "status": "invalid", "error": str(error)}
                print(json.dumps(failure))
            continue
        print(json.dumps(verdict.to_dict()) if as_json else _format_verdict(verdict))
        if not verdict.is_valid:
            objections.append(verdict.failure_message)
            has_invalid |= verdict.status == "invalid"
    if has_invalid:
        raise LensError(" | ".join(objections))
    if objections:
        print(f"lens: {' | '.join(objections)}", file=sys.stderr)
        raise typer.Exit(EXIT_UNSIGNED)


def _format_verdict(verdict: "ProvenanceReport") -> str:
    if verdict.is_empty:
        return f"{verdict.path}\n  nothing found: no settings, no XMP, no C2PA manifest"
    return "\n".join(
        [str(verdict.path), *(f"  {finding.check:<9} {finding.summary}" for finding in verdict.findings)]
    )
