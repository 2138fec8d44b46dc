"""`lens verify PICTURE...`: what pictures say of themselves, and whether it holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lens.errors import LensError

if TYPE_CHECKING:
    from lens.serve.safety.verify import ProvenanceReport

ImagesArgument = Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.", show_default=False)]
Trust = Annotated[
    Path | None,
    typer.Option(help="PEM file of certificates: only what they vouch for holds.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a picture, each in its line.")]


def verify(pictures: ImagesArgument, trust: Trust = None, as_json: AsJson = False) -> None:
    """Show settings, XMP and signature of pictures; status 2 where something is wrong or nothing is there."""
    from lens.serve.safety.verify import read_trust_anchors
    from lens.serve.safety.verify import verify_image as verified

    trusted = None if trust is None else read_trust_anchors(trust)
    objections = []
    for path in pictures:
        try:
            verdict = verified(path, trusted)
        except LensError as error:
            if len(pictures) == 1:
                raise
            objections.append(str(error))
            if as_json:
                print(json.dumps({"picture": str(path), "holds": False, "error": str(error)}))
            continue
        print(json.dumps(verdict.to_dict()) if as_json else _format_verdict(verdict))
        if not verdict.is_valid:
            objections.append(verdict.failure_message)
    if objections:
        raise LensError(" | ".join(objections))


def _format_verdict(verdict: "ProvenanceReport") -> str:
    if verdict.is_empty:
        return f"{verdict.path}\n  nothing is there: no settings, no XMP, no C2PA manifest"
    return "\n".join(
        [str(verdict.path), *(f"  {finding.check:<9} {finding.summary}" for finding in verdict.findings)]
    )
