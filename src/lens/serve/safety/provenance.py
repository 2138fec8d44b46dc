"""Provenance marks of images: metadata, XMP that names a trained model as source, a signed C2PA manifest.

The signature is written last and covers everything else in the file. An image that cannot be marked is an
error. Uses no network, unless the settings name a time stamp authority.
Knows nothing of jobs or HTTP; `verify.py` reads these marks.
"""

import io
import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from PIL import Image

from lens.errors import LensError, MissingExtraError, SettingError
from lens.sampling.image_metadata import ImageMetadata, encode_image_file
from lens.serve.safety.certificates import SigningIdentity, ensure_test_identity, read_identity
from lens.serve.settings.server import SigningSettings

GENERATOR_NAME = "lens-t2i"
TRAINED_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for images that a trained model generated."""
IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="{namespace}"
    xmp:CreatorTool="{tool}" Iptc4xmpExt:DigitalSourceType="{source}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
OUTPUT_FORMATS = {"png": "png", "jpeg": "jpg", "jpg": "jpg", "webp": "webp"}
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "jpg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True)
class Signer:
    """Signs images; safe to share among threads."""

    identity: SigningIdentity
    timestamp_url: str | None = None

    @classmethod
    def from_settings(cls, settings: SigningSettings, folder: Path) -> Self:
        """Return the signer of the settings, or one with the test certificate in `folder`.

        Signs a blank image, without a time stamp, so that a certificate that C2PA rejects stops the start.
        Raises: LensError.
        """
        if settings.certificate is None or settings.key is None:
            identity = ensure_test_identity(folder)
        else:
            passphrase = os.environ.get(settings.passphrase_variable)
            identity = read_identity(settings.certificate, settings.key, passphrase)
        blank = io.BytesIO()
        Image.new("RGB", (8, 8)).save(blank, "PNG")
        cls(identity).sign(blank.getvalue(), "image/png")
        return cls(identity, settings.timestamp_url)

    @property
    def is_test(self) -> bool:
        """Whether the certificate is a test certificate, which proves no origin."""
        return self.identity.is_test

    def sign(self, content: bytes, media_type: str) -> bytes:
        """Return the bytes of an image file with a signed manifest that covers the rest of the file.

        Raises: LensError if the library cannot sign.
        """
        c2pa = c2pa_library()
        target = io.BytesIO()
        try:
            info = c2pa.C2paSignerInfo(
                self.identity.algorithm.encode(),
                self.identity.chain,
                self.identity.key,
                self.timestamp_url.encode() if self.timestamp_url else None,
            )
            # By default the library embeds a thumbnail, a second copy of the image.
            options = {"builder": {"thumbnail": {"enabled": False}}} | OFFLINE_OPTIONS
            context = c2pa.Context.from_dict(options, signer=c2pa.Signer.from_info(info))
            with context, c2pa.Builder(json.dumps(c2pa_manifest()), context=context) as builder:
                builder.sign(media_type, io.BytesIO(content), target)
        except c2pa.C2paError as error:
            raise LensError(f"The image cannot be signed ({error}), so it is discarded.") from error
        return target.getvalue()


OFFLINE_OPTIONS: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Settings of the library that keep it from calling addresses that an image names."""


def embed_provenance(
    image: Image.Image,
    metadata: ImageMetadata,
    format: str,
    quality: int | None = None,
    signer: Signer | None = None,
) -> bytes:
    """Return an image as the bytes of a png, jpeg or webp file with metadata, XMP and signed manifest.

    `quality` is for jpeg and webp, from 0 to 100; without a signer there is no manifest.
    Raises: SettingError for an unknown format or quality; LensError if the image cannot be marked.
    """
    check_encoding(format, quality)
    file_format = OUTPUT_FORMATS[format]
    target = io.BytesIO()
    try:
        encode_image_file(
            image, metadata, file_format, target, None if file_format == "png" else quality, xmp_packet()
        )
    except (OSError, ValueError) as error:
        raise LensError(f"The image cannot be written as {format} ({error}).") from error
    return signer.sign(target.getvalue(), MEDIA_TYPES[file_format]) if signer else target.getvalue()


def check_encoding(format: str, quality: int | None) -> None:
    """Raise SettingError for a file format or quality that no image can be encoded with."""
    if format not in OUTPUT_FORMATS:
        raise SettingError("output_format", format, "one of png, jpeg, webp")
    if quality is not None and not 0 <= quality <= 100:
        raise SettingError("output_compression", quality, "a number from 0 to 100")
    if OUTPUT_FORMATS[format] == "png" and quality not in (None, 100):
        fix = "Leave it out, or choose jpeg or webp."
        raise SettingError("output_compression", quality, "100 for png, which is lossless", fix)


def xmp_packet() -> str:
    """Return the XMP packet of every image."""
    return XMP_TEMPLATE.format(namespace=IPTC_EXTENSION, tool=generator_version(), source=TRAINED_MODEL)


def generator_version() -> str:
    """Return the generator's name and version, as images state them."""
    return f"{GENERATOR_NAME}/{version(GENERATOR_NAME)}"


def c2pa_manifest() -> dict[str, Any]:
    """Return the manifest of every image; the library adds the hash of the file."""
    tool = {"name": GENERATOR_NAME, "version": version(GENERATOR_NAME)}
    created = {"action": "c2pa.created", "digitalSourceType": TRAINED_MODEL, "softwareAgent": tool}
    return {
        "claim_generator": generator_version(),
        "claim_generator_info": [tool],
        "title": "A picture by Lens",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }


def c2pa_library() -> ModuleType:
    """Return the C2PA library.

    Raises: MissingExtraError.
    """
    try:
        import c2pa
    except (ImportError, OSError) as error:  # OSError: the native library does not load
        raise MissingExtraError("Signing images", "c2pa-python", "serve") from error
    return c2pa
