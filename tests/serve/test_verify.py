"""`lens verify` tells a picture that holds from one that was changed, stripped, forged or never marked."""

import io
import json
import struct
import sys
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from local_server import Answering, started_server
from PIL import Image, PngImagePlugin
from trust import root_certificate

from lens.cli.main import main
from lens.errors import LensError, SettingError
from lens.nano.world.scenes import draw_scene, random_scene
from lens.sampling.image_metadata import ImageMetadata, encode_image_file
from lens.serve.safety import certificates
from lens.serve.safety.provenance import Signer, embed_provenance, xmp_packet
from lens.serve.safety.verify import Finding, read_trust_anchors, verify_image
from lens.serve.settings.server import SigningSettings

FORMATS = ("png", "jpeg", "webp")
WIDTH_PX, HEIGHT_PX = 96, 64
SETTINGS = ImageMetadata(
    prompt="a fox above three lemons", seed=7, width=WIDTH_PX, height=HEIGHT_PX, steps=20, guidance=2.0,
    solver="euler", model="lens-nano", model_hash="ab" * 32, dtype="float32", device="cpu",
)  # fmt: skip


def scene(seed: int = 0) -> Image.Image:
    pixels = draw_scene(random_scene(np.random.default_rng(seed), HEIGHT_PX, WIDTH_PX)).transpose(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).astype(np.uint8))


@pytest.fixture(scope="module")
def signer(tmp_path_factory) -> Signer:
    return Signer.from_settings(SigningSettings(), tmp_path_factory.mktemp("keys"))


@pytest.fixture
def written(tmp_path):
    def write(content: bytes, name: str = "picture.png") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def found(path: Path, what: str, trusted: bytes | None = None) -> Finding:
    return next(one for one in verify_image(path, trusted).findings if one.check == what)


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pixels_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def with_other_pixels(content: bytes, format: str) -> bytes:
    """Return a file of the same marks whose pixels differ."""
    if format == "png":
        chunks = png_chunks(content)
        drawn = bytearray(zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT")))
        drawn[3 * WIDTH_PX + 50] ^= 0x55
        first = next(place for place, (kind, _) in enumerate(chunks) if kind == b"IDAT")
        kept = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
        return png_of([*kept[:first], (b"IDAT", zlib.compress(bytes(drawn))), *kept[first:]])
    start = content.rindex(b"\xff\xda") + 20 if format == "jpeg" else content.index(b"VP8 ") + 400
    for place in range(start + 100, start + 600):
        changed = bytearray(content)
        changed[place] ^= 0x04
        try:
            if (pixels_of(bytes(changed)) != pixels_of(content)).any():
                return bytes(changed)
        except OSError:
            continue
    raise AssertionError("no byte of the picture could be changed")


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_that_nobody_touched_holds_and_the_test_certificate_is_called_one(signer, format, written):
    path = written(embed_provenance(scene(), SETTINGS, format, None, signer), f"picture.{format}")
    verdict = verify_image(path)
    assert verdict.is_valid and not verdict.is_empty and verdict.failure_message == ""
    assert [(one.check, one.state) for one in verdict.findings] == [
        ("settings", "holds"), ("xmp", "holds"), ("c2pa", "holds"),
    ]  # fmt: skip
    manifest = found(path, "c2pa")
    assert manifest.verdict == "test certificate" and "proves no origin" in manifest.explanation
    assert found(path, "settings").details["settings"]["prompt"] == SETTINGS.prompt
    assert verify_image(path, root_certificate(signer.identity)).is_valid


@pytest.mark.parametrize("format", FORMATS)
def test_changed_pixels_are_found(signer, format, written):
    content = embed_provenance(scene(), SETTINGS, format, None, signer)
    changed = with_other_pixels(content, format)
    assert (pixels_of(changed) != pixels_of(content)).any()
    verdict = verify_image(written(changed, f"picture.{format}"))
    assert not verdict.is_valid
    assert "c2pa tampered: the file was changed after it was signed" in verdict.failure_message


def test_changed_settings_are_found_though_they_still_read(signer, written):
    chunks = png_chunks(embed_provenance(scene(), SETTINGS, "png", None, signer))
    path = written(png_of([(kind, data.replace(b"three lemons", b"seven lemons")) for kind, data in chunks]))
    assert found(path, "settings").details["settings"]["prompt"] == "a fox above seven lemons"
    assert (found(path, "settings").state, found(path, "c2pa").verdict) == ("holds", "tampered")


def test_a_manifest_moved_to_another_picture_is_found(signer, written):
    signed = png_chunks(embed_provenance(scene(), SETTINGS, "png", None, signer))
    manifest = next(chunk for chunk in signed if chunk[0] == b"caBX")
    other = png_chunks(embed_provenance(scene(seed=1), SETTINGS, "png"))
    assert found(written(png_of([other[0], manifest, *other[1:]])), "c2pa").verdict == "tampered"


def test_a_manifest_that_was_changed_is_found(signer, written):
    def rewritten(old: bytes, new: bytes) -> Path:
        chunks = png_chunks(embed_provenance(scene(), SETTINGS, "png", None, signer))
        return written(
            png_of([(kind, data.replace(old, new) if kind == b"caBX" else data) for kind, data in chunks])
        )

    assert found(rewritten(b"trainedAlgorithmicMedia", b"digitalCaptureMediaOf01"), "c2pa").state == "broken"
    assert found(rewritten(b"A picture by Lens", b"A picture by Lena"), "c2pa").verdict == "tampered"
    cut = [
        (kind, data[:200] if kind == b"caBX" else data)
        for kind, data in png_chunks(embed_provenance(scene(), SETTINGS, "png", None, signer))
    ]
    assert found(written(png_of(cut)), "c2pa").verdict == "invalid"


def without_manifest(content: bytes, format: str) -> bytes:
    """Return a signed file without its C2PA part, as anybody can cut it out."""
    if format == "png":
        return png_of([chunk for chunk in png_chunks(content) if chunk[0] != b"caBX"])
    if format == "webp":
        start = content.index(b"C2PA")
        (length,) = struct.unpack("<I", content[start + 4 : start + 8])
        rest = content[:start] + content[start + 8 + length + length % 2 :]
        return rest[:4] + struct.pack("<I", len(rest) - 8) + rest[8:]
    kept, at = content[:2], 2
    while content[at : at + 2] != b"\xff\xda":
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        kept += b"" if content[at + 1] == 0xEB else content[at : at + 2 + length]
        at += 2 + length
    return kept + content[at:]


@pytest.mark.parametrize("format", FORMATS)
def test_marks_without_a_signature_have_a_status_of_their_own(signer, format, written, capsys):
    cut = without_manifest(embed_provenance(scene(), SETTINGS, format, None, signer), format)
    path = written(with_other_pixels(cut, format), f"picture.{format}")
    verdict = verify_image(path)
    assert (verdict.status, verdict.is_valid, found(path, "c2pa").state) == ("unsigned", False, "absent")
    assert main(["verify", str(path)]) == 3
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "may have been changed" in said.err
    assert main(["verify", "--json", str(path)]) == 3
    facts = json.loads(capsys.readouterr().out)
    assert (facts["status"], facts["holds"], facts["settings"]["state"]) == ("unsigned", False, "holds")
    signed = written(embed_provenance(scene(), SETTINGS, format, None, signer), f"signed.{format}")
    assert main(["verify", str(signed), str(path)]) == 3
    assert main(["verify", str(path), str(written(b"text", "text.png"))]) == 2


def test_a_signature_that_is_asked_for_is_missed(signer, written):
    path = written(embed_provenance(scene(), SETTINGS, "png"))
    with_trust = verify_image(path, root_certificate(signer.identity))
    assert not with_trust.is_valid and "c2pa unsigned" in with_trust.failure_message


def test_a_signature_by_another_is_not_trusted(signer, written, tmp_path):
    other = Signer.from_settings(SigningSettings(), tmp_path / "other")
    path = written(embed_provenance(scene(), SETTINGS, "png", None, other))
    assert verify_image(path).is_valid
    assert found(path, "c2pa", root_certificate(signer.identity)).verdict == "untrusted"


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_saved_again_without_its_marks_has_nothing(signer, format, written):
    with Image.open(io.BytesIO(embed_provenance(scene(), SETTINGS, format, None, signer))) as picture:
        bare = Image.fromarray(np.asarray(picture))
    target = io.BytesIO()
    bare.save(target, format)
    verdict = verify_image(written(target.getvalue(), f"picture.{format}"))
    assert verdict.is_empty and not verdict.is_valid and "it has no marks" in verdict.failure_message


def test_a_certificate_whose_time_is_over_is_said_to_be(tmp_path, written, monkeypatch):
    soon = datetime.now(UTC) + timedelta(seconds=2)
    made = x509.CertificateBuilder.not_valid_after
    monkeypatch.setattr(x509.CertificateBuilder, "not_valid_after", lambda self, _: made(self, soon))
    short = certificates.ensure_test_identity(tmp_path / "keys")
    path = written(embed_provenance(scene(), SETTINGS, "png", None, Signer(short)))
    assert verify_image(path).is_valid
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 1)
    assert found(path, "c2pa").verdict == "expired"


def test_settings_of_another_picture_or_that_do_not_read_are_found(written):
    target = io.BytesIO()
    encode_image_file(scene().resize((32, 32)), SETTINGS, "png", target)
    finding = found(written(target.getvalue()), "settings")
    assert (finding.state, finding.explanation) == ("broken", "for 96 x 64 pixels, but the image has 32 x 32")
    for document in ("{", "[1]", '{"prompt": 3}'):
        assert found(written(png_with("lens", document)), "settings").verdict == "damaged"


def png_with(key: str, text: str) -> bytes:
    target, chunks = io.BytesIO(), PngImagePlugin.PngInfo()
    chunks.add_itxt(key, text)
    scene().save(target, "PNG", pnginfo=chunks)
    return target.getvalue()


@pytest.mark.parametrize(
    ("packet", "state", "says"),
    [
        ("<x", "broken", "cannot be read"),
        ("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>", "broken", "declares entities"),
        ("<x/>", "holds", "states no source"),
        (xmp_packet().replace("trainedAlgorithmicMedia", "digitalCapture"), "holds", "digitalCapture"),
        (xmp_packet(), "holds", "generated by a trained model"),
        (
            '<r xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><i:DigitalSourceType>'
            "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</i:DigitalSourceType></r>",
            "holds",
            "generated by a trained model",
        ),
    ],
)
def test_xmp_of_anybody_is_read_without_being_trusted(packet, state, says, written):
    finding = found(written(png_with("XML:com.adobe.xmp", packet)), "xmp")
    assert (finding.state, says in finding.explanation) == (state, True), finding


def test_a_picture_cannot_make_the_reader_call_an_address(written):
    asked = []

    class Handler(Answering):
        def do_GET(self):
            asked.append(self.path)
            self.send(404, {}, b"")

    server = started_server(Handler)
    try:
        address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        names = f'rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"'
        packet = xmp_packet().replace('rdf:about=""', names)
        finding = found(written(png_with("XML:com.adobe.xmp", packet)), "c2pa")
    finally:
        server.shutdown()
        server.server_close()
    assert (finding.state, finding.verdict, asked) == ("broken", "elsewhere", []), finding


def test_what_is_no_picture_that_can_be_verified_is_an_error(written, tmp_path):
    target = io.BytesIO()
    scene().save(target, "BMP")
    bitmap = target.getvalue()
    for content, says in (
        (bitmap, "is a BMP file"),
        (b"", "not a readable image"),
        (b"\x89PNG", "not a readable image"),
    ):
        with pytest.raises(LensError, match=says):
            verify_image(written(content))
    with pytest.raises(LensError, match="does not exist"):
        verify_image(tmp_path / "none.png")
    cut = written(embed_provenance(scene(), SETTINGS, "jpeg")[:-200])
    with pytest.raises(LensError, match="truncated"):
        verify_image(cut)


def test_control_characters_of_a_file_do_not_reach_a_terminal():
    assert Finding("c2pa", "holds", "valid", "by \x1b[31mX\u202e").summary == "valid: by ?[31mX?"


def test_the_command_exits_with_0_where_all_holds_and_says_what_is_there(signer, written, capsys):
    path = written(embed_provenance(scene(), SETTINGS, "webp", None, signer), "picture.webp")
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == str(path) and [line.split()[0] for line in lines[1:]] == ["settings", "xmp", "c2pa"]
    assert main(["verify", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["holds"] is True and facts["c2pa"]["is_test_certificate"] is True
    assert facts["c2pa"]["actions"][0]["digitalSourceType"] == facts["xmp"]["digital_source_type"]


def test_the_command_exits_with_2_and_one_line_that_names_what_does_not_hold(signer, written, capsys):
    good = embed_provenance(scene(), SETTINGS, "png", None, signer)
    bare = png_of([chunk for chunk in png_chunks(good) if chunk[0] in (b"IHDR", b"IDAT", b"IEND")])
    paths = [
        written(good, "good.png"),
        written(with_other_pixels(good, "png"), "changed.png"),
        written(bare, "bare.png"),
        written(b"text", "text.png"),
    ]
    assert main(["verify", *map(str, paths)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "good.png" not in said.err
    for words in (
        "changed.png: c2pa tampered",
        "bare.png: it has no marks",
        "text.png is not a readable image",
    ):
        assert words in said.err
    assert main(["verify", "--json", *map(str, paths)]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["holds"] for one in answers] == [True, False, False, False]


def test_the_command_trusts_whom_it_is_told_to(signer, written, tmp_path, capsys):
    path = written(embed_provenance(scene(), SETTINGS, "jpeg", None, signer), "picture.jpeg")
    (tmp_path / "ours.pem").write_bytes(root_certificate(signer.identity))
    other = Signer.from_settings(SigningSettings(), tmp_path / "other")
    (tmp_path / "theirs.pem").write_bytes(root_certificate(other.identity))
    assert main(["verify", str(path), "--trust", str(tmp_path / "ours.pem")]) == 0
    assert main(["verify", str(path), "--trust", str(tmp_path / "theirs.pem")]) == 2
    assert "c2pa untrusted" in capsys.readouterr().err
    (tmp_path / "none.pem").write_bytes(other.identity.key)
    with pytest.raises(SettingError, match="PEM file of certificates"):
        read_trust_anchors(tmp_path / "none.pem")


def test_without_the_library_the_command_says_what_to_install(written, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert main(["verify", str(written(embed_provenance(scene(), SETTINGS, "png")))]) == 2
    assert 'pip install -c constraints.txt ".[serve]"' in capsys.readouterr().err
