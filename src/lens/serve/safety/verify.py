"""Verification of provenance: checks the metadata, XMP and C2PA manifest of an image file.

Signatures are checked by the C2PA library, offline. Knows only what the file contains; `provenance.py` writes
these marks.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from PIL import Image

from lens.errors import LensError, SettingError
from lens.sampling.image_metadata import metadata_json, open_image, parse_image_metadata
from lens.sampling.metadata_formats.image_texts import EXIF_ERRORS
from lens.serve.safety.certificates import TEST_ORGANIZATION
from lens.serve.safety.provenance import (
    IPTC_EXTENSION,
    MEDIA_TYPES,
    OFFLINE_OPTIONS,
    TRAINED_MODEL,
    c2pa_library,
)

SOURCE_TYPE = f"{{{IPTC_EXTENSION}}}DigitalSourceType"
UNTRUSTED = "signingCredential.untrusted"
TAMPERED = ("dataHash.mismatch", "hashedURI.mismatch", "claimSignature.mismatch", "assertion.missing")
EXPIRED = ("signingCredential.expired", "claimSignature.outsideValidity")

FindingState = Literal["absent", "holds", "broken"]
VerificationStatus = Literal["valid", "unsigned", "invalid"]


@dataclass(frozen=True)
class Finding:
    """The result of one check of an image."""

    check: Literal["settings", "xmp", "c2pa"]
    state: FindingState
    verdict: str
    """In one or two words: absent, valid, trusted, test certificate, tampered, invalid, ..."""
    explanation: str
    """One line of text."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Verdict and explanation, without control characters that come from the file."""
        line = f"{self.verdict}: {self.explanation}"
        return "".join(one if one.isprintable() else "?" for one in line)


@dataclass(frozen=True)
class ProvenanceReport:
    """The results of all checks of an image."""

    path: Path
    findings: tuple[Finding, ...]

    @property
    def is_empty(self) -> bool:
        return all(one.state == "absent" for one in self.findings)

    @property
    def status(self) -> VerificationStatus:
        """`valid`: marks and a manifest, and no check failed. `unsigned`: marks, but no manifest."""
        if self.is_empty or any(one.state == "broken" for one in self.findings):
            return "invalid"
        is_signed = any(one.check == "c2pa" and one.state == "holds" for one in self.findings)
        return "valid" if is_signed else "unsigned"

    @property
    def is_valid(self) -> bool:
        """Whether a manifest confirms that the image is unchanged, and no check failed."""
        return self.status == "valid"

    @property
    def failure_message(self) -> str:
        """What keeps the image from being valid, in one line; "" if it is."""
        if self.is_valid:
            return ""
        if self.status == "unsigned":
            return (
                f"{self.path}: it has marks but no C2PA manifest. It was not signed, or its signature was "
                "removed, so its pixels and its settings may have been changed"
            )
        broken = [f"{one.check} {one.summary}" for one in self.findings if one.state == "broken"]
        nothing = "it has no marks: no metadata, XMP or C2PA manifest"
        return f"{self.path}: {'; '.join(broken) or nothing}"

    def to_dict(self) -> dict[str, Any]:
        """Return the results as plain values."""
        findings = {
            one.check: {"state": one.state, "verdict": one.verdict, "says": one.explanation, **one.details}
            for one in self.findings
        }
        return {"picture": str(self.path), "holds": self.is_valid, "status": self.status, **findings}


def verify_image(path: Path, trust_anchors: bytes | None = None) -> ProvenanceReport:
    """Check the metadata, the XMP and the C2PA manifest of a PNG, JPEG or WebP file.

    With `trust_anchors`, certificates as PEM, the image must have a signature that one of them issued.
    Raises: LensError for a file that cannot be read, or a missing package.
    """
    path = Path(path)
    try:
        image = open_image(path)
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            image_format = opened.format or "unknown"
    except (OSError, Image.DecompressionBombError) as error:
        raise LensError(f"{path} cannot be read ({error}). Use another copy.") from error
    media_type = MEDIA_TYPES.get(image_format.lower())
    if media_type is None:
        raise LensError(f"{path} is a {image_format} file. Only PNG, JPEG and WebP files can be verified.")
    manifest = _check_manifest(content, media_type, trust_anchors)
    return ProvenanceReport(path, (_check_settings(image, path), _check_xmp(image), manifest))


def read_trust_anchors(path: Path) -> bytes:
    """Return the PEM certificates of a file.

    Raises: SettingError if there are none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingError("--trust", str(path), f"a file that can be read ({error.strerror})") from error
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise SettingError("--trust", str(path), "a PEM file of certificates")
    return content


def _check_settings(image: Image.Image, path: Path) -> Finding:
    try:
        document = metadata_json(image)
    except EXIF_ERRORS as error:
        return Finding("settings", "broken", "damaged", f"the EXIF data cannot be read ({error})")
    if document is None:
        return Finding("settings", "absent", "absent", "none")
    try:
        settings = parse_image_metadata(document, path)
    except LensError as error:
        return Finding("settings", "broken", "damaged", str(error))
    details = {"settings": settings.model_dump(mode="json", exclude_none=True)}
    if settings.file_size != image.size:
        sizes = settings.file_size, image.size
        recorded_size, actual_size = (f"{width} x {height}" for width, height in sizes)
        return Finding(
            "settings",
            "broken",
            "of another",
            f"for {recorded_size} pixels, but the image has {actual_size}",
            details,
        )
    explanation = (
        f"{settings.model}, {image.width} x {image.height}, seed {settings.seed}, {settings.steps} steps"
    )
    return Finding("settings", "holds", "there", explanation, details)


def _check_xmp(image: Image.Image) -> Finding:
    packet = image.info.get("xmp")
    if not packet:
        return Finding("xmp", "absent", "absent", "none")
    try:
        text = packet.decode() if isinstance(packet, bytes) else str(packet)
        if "<!" in text:  # entities can grow without end
            raise ValueError("it declares entities")
        source = _source_type(ElementTree.fromstring(text.strip().strip("\ufeff\0")))
    except (ValueError, ElementTree.ParseError) as error:
        return Finding("xmp", "broken", "damaged", f"the XMP packet cannot be read ({error})")
    details = {"digital_source_type": source}
    if source is None:
        return Finding("xmp", "holds", "silent", "states no source of the image", details)
    if source == TRAINED_MODEL:
        return Finding(
            "xmp", "holds", "there", "generated by a trained model (trainedAlgorithmicMedia)", details
        )
    return Finding("xmp", "holds", "there", f"source: {source}", details)


def _source_type(root: ElementTree.Element) -> str | None:
    for element in root.iter():
        value = element.get(SOURCE_TYPE)
        if value is None and element.tag == SOURCE_TYPE:
            value = element.text or element.get("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource")
        if value:
            return value.strip()
    return None


def _check_manifest(content: bytes, media_type: str, trust_anchors: bytes | None) -> Finding:
    c2pa = c2pa_library()
    trust = (
        {} if trust_anchors is None else {"trust": {"trust_anchors": trust_anchors.decode(errors="replace")}}
    )
    verify = OFFLINE_OPTIONS["verify"] | {"verify_trust": trust_anchors is not None}
    try:
        with c2pa.Context.from_dict({"verify": verify} | trust) as context:
            reader = c2pa.Reader.try_create(media_type, io.BytesIO(content), context=context)
            if reader is None:
                return _unsigned_finding(trust_anchors)
            with reader:
                store = json.loads(reader.json())
    except c2pa.C2paError as error:
        if "remote manifest" in str(error):
            explanation = f"the manifest is not in the file and is not downloaded ({error})"
            return Finding("c2pa", "broken", "elsewhere", explanation)
        return Finding("c2pa", "broken", "invalid", f"the manifest cannot be read ({error})")
    return _manifest_finding(store, trust_anchors)


def _unsigned_finding(trust_anchors: bytes | None) -> Finding:
    explanation = "the image was not signed, or its signature was removed"
    if trust_anchors is None:
        return Finding("c2pa", "absent", "absent", explanation)
    return Finding("c2pa", "broken", "unsigned", explanation)


def _manifest_finding(store: Mapping[str, Any], trust_anchors: bytes | None) -> Finding:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    signature = active.get("signature_info") or {}
    tools = active.get("claim_generator_info") or [{}]
    generator = active.get("claim_generator") or "/".join(
        str(tools[0][key]) for key in ("name", "version") if key in tools[0]
    )
    who = ", ".join(filter(None, (signature.get("common_name"), signature.get("issuer"))))
    by_test = signature.get("issuer") == TEST_ORGANIZATION
    state = store.get("validation_state")
    # Without trust anchors every signer is untrusted; the signers of ingredients may be so at any time.
    trust_matters = trust_anchors is not None and state != "Trusted"
    failures = [code for code in _failures(store) if trust_matters or code != UNTRUSTED]
    details = {
        "signer": who,
        "is_test_certificate": by_test,
        "claim_generator": generator,
        "signed_at": signature.get("time"),
        "actions": _actions(active),
        "failures": failures,
    }
    signed = f"signed with {generator} by {who}"
    if any(code.endswith(TAMPERED) for code in failures):
        return Finding("c2pa", "broken", "tampered", "the file was changed after it was signed", details)
    if any(code in EXPIRED for code in failures):
        explanation = (
            f"{signed}, but the certificate had expired or has expired since, and there is no time stamp"
        )
        return Finding("c2pa", "broken", "expired", explanation, details)
    if UNTRUSTED in failures:
        explanation = f"{signed}, whom no trusted certificate confirms"
        return Finding("c2pa", "broken", "untrusted", explanation, details)
    if state not in ("Valid", "Trusted") or failures:
        return Finding("c2pa", "broken", "invalid", f"{', '.join(failures) or state}", details)
    if by_test:
        explanation = f"unchanged since it was {signed}, which proves no origin"
        return Finding("c2pa", "holds", "test certificate", explanation, details)
    unknown = "" if state == "Trusted" else "; the signer is not checked without --trust"
    return Finding("c2pa", "holds", str(state).lower(), f"unchanged since it was {signed}{unknown}", details)


def _failures(store: Mapping[str, Any]) -> list[str]:
    results = store.get("validation_results") or {}
    every: Sequence[Mapping[str, Any]] = [
        results.get("activeManifest") or {},
        *(one.get("validationDeltas") or {} for one in results.get("ingredientDeltas") or ()),
    ]
    return list(dict.fromkeys(entry["code"] for one in every for entry in one.get("failure") or ()))


def _actions(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: action.get(key) for key in ("action", "digitalSourceType")}
        for assertion in manifest.get("assertions") or ()
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions") or ()
    ]
