"""Pictures leave with settings, XMP and a manifest that C2PA's own reader accepts, or not at all."""

import io
import json
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from trust import root_certificate

from lens.errors import LensError, SettingError
from lens.nano.world.scenes import draw_scene, random_scene
from lens.sampling.image_metadata import ImageMetadata, read_image_metadata
from lens.serve.safety import certificates
from lens.serve.safety.certificates import TEST_FILE, TEST_ORGANIZATION, read_identity
from lens.serve.safety.provenance import (
    TRAINED_MODEL,
    Signer,
    embed_provenance,
    generator_version,
)
from lens.serve.settings.server import SigningSettings

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
PEM = serialization.Encoding.PEM
SETTINGS = ImageMetadata(
    prompt="a fox above three lemons, caf\u00e9 \U0001f98a", seed=7, width=96, height=64, steps=20,
    guidance=2.0, solver="euler", model="lens-nano", model_hash="ab" * 32, dtype="float32", device="cpu",
)  # fmt: skip


def scene(seed: int = 0) -> Image.Image:
    pixels = draw_scene(random_scene(np.random.default_rng(seed), 64, 96)).transpose(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).astype(np.uint8))


@pytest.fixture(scope="module")
def signer(tmp_path_factory) -> Signer:
    return Signer.from_settings(SigningSettings(), tmp_path_factory.mktemp("keys"))


def manifests(content: bytes, format: str, anchors: bytes | None = None) -> dict | None:
    trust = {} if anchors is None else {"trust": {"trust_anchors": anchors.decode()}}
    context = c2pa.Context.from_dict({"verify": {"verify_trust": anchors is not None}} | trust)
    reader = c2pa.Reader.try_create(MEDIA_TYPES[format], io.BytesIO(content), context=context)
    return None if reader is None else json.loads(reader.json())


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_a_picture_leaves_with_settings_xmp_and_a_manifest_that_the_librarys_reader_accepts(
    signer, format, tmp_path
):
    content = embed_provenance(scene(), SETTINGS, format, None, signer)
    store = manifests(content, format)
    assert store["validation_state"] == "Valid"
    active = store["manifests"][store["active_manifest"]]
    (tool,) = active["claim_generator_info"]
    assert f"{tool['name']}/{tool['version']}" == generator_version() and generator_version().startswith(
        "lens-t2i/"
    )
    (actions,) = [one["data"]["actions"] for one in active["assertions"]]
    assert [(one["action"], one["digitalSourceType"]) for one in actions] == [("c2pa.created", TRAINED_MODEL)]
    assert active["signature_info"]["issuer"] == TEST_ORGANIZATION and "TEST" in TEST_ORGANIZATION
    assert "thumbnail" not in active

    path = tmp_path / f"picture.{format}"
    path.write_bytes(content)
    assert read_image_metadata(path) == SETTINGS
    with Image.open(path) as picture:
        assert picture.format.lower() == format
        assert f'Iptc4xmpExt:DigitalSourceType="{TRAINED_MODEL}"' in picture.info["xmp"].decode()
        far = np.abs(np.asarray(picture.convert("RGB"), int) - np.asarray(scene(), int)).mean()
    assert far == 0 if format == "png" else 0 < far < 4


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_the_manifest_is_trusted_by_whom_trusts_its_authority_and_by_nobody_else(signer, format, tmp_path):
    content = embed_provenance(scene(), SETTINGS, format, None, signer)
    other = Signer.from_settings(SigningSettings(), tmp_path)
    assert manifests(content, format, root_certificate(signer.identity))["validation_state"] == "Trusted"
    failed = manifests(content, format, root_certificate(other.identity))["validation_results"][
        "activeManifest"
    ]
    assert [one["code"] for one in failed["failure"]] == ["signingCredential.untrusted"]


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_without_a_signer_a_picture_has_settings_and_xmp_alone(format):
    content = embed_provenance(scene(), SETTINGS, format)
    assert manifests(content, format) is None
    with Image.open(io.BytesIO(content)) as picture:
        assert TRAINED_MODEL in picture.info["xmp"].decode()


def test_quality_is_that_of_the_file(signer):
    for format in ("jpeg", "webp"):
        sizes = [
            len(embed_provenance(scene(), SETTINGS, format, quality, signer)) for quality in (5, 60, 100)
        ]
        assert sizes == sorted(set(sizes))
    assert embed_provenance(scene(), SETTINGS, "png", 100, None) == embed_provenance(
        scene(), SETTINGS, "png", None, None
    )


@pytest.mark.parametrize(
    ("format", "quality", "says"),
    [("gif", None, "png, jpeg, webp"), ("jpeg", 101, "from 0 to 100"), ("png", 50, "100 for png")],
)
def test_a_format_or_a_quality_that_cannot_be_is_refused(format, quality, says):
    with pytest.raises(SettingError, match=says):
        embed_provenance(scene(), SETTINGS, format, quality, None)


def test_settings_that_do_not_fit_are_an_error_and_no_picture(signer):
    long = SETTINGS.model_copy(update={"prompt": "lemon " * 20_000})
    with pytest.raises(LensError, match="does not fit"):
        embed_provenance(scene(), long, "jpeg", None, signer)
    assert (
        manifests(embed_provenance(scene(), long, "png", None, signer), "png")["validation_state"] == "Valid"
    )


def test_a_time_stamp_authority_that_is_down_stops_the_picture(signer):
    stamped = Signer(signer.identity, timestamp_url="http://127.0.0.1:9/stamp")
    with pytest.raises(LensError, match=r"cannot be signed .* is discarded"):
        embed_provenance(scene(), SETTINGS, "png", None, stamped)


def test_threads_share_a_signer(signer):
    with ThreadPoolExecutor(8) as threads:
        seen = list(
            threads.map(lambda seed: embed_provenance(scene(seed), SETTINGS, "jpeg", 90, signer), range(24))
        )
    assert {manifests(content, "jpeg")["validation_state"] for content in seen} == {"Valid"}
    assert len({manifests(content, "jpeg")["active_manifest"] for content in seen}) == 24


def test_the_test_certificate_is_kept_private_and_renewed_in_time(tmp_path, monkeypatch):
    first = Signer.from_settings(SigningSettings(), tmp_path)
    assert first.is_test
    assert Signer.from_settings(SigningSettings(), tmp_path).identity == first.identity
    assert stat.S_IMODE((tmp_path / TEST_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [TEST_FILE]
    monkeypatch.setattr(certificates, "RENEWAL_MARGIN", timedelta(days=365 * certificates.TEST_YEARS + 1))
    assert Signer.from_settings(SigningSettings(), tmp_path).identity.chain != first.identity.chain


def test_a_key_does_not_show_where_its_signer_is_printed(signer):
    assert "PRIVATE" not in repr(signer)


def test_a_test_certificate_that_cannot_be_kept_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LensError, match=r"Cannot write .*c2pa_test\.pem"):
        Signer.from_settings(SigningSettings(), tmp_path / "file")


KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
}


def operator_files(
    folder: Path, key, passphrase: str | None = None, days: tuple[float, float] = (-1, 30), **usage: bool
) -> SigningSettings:
    """Write the certificates and the key of an operator, vouched for by an authority of their own."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    certificates = [
        certificate("Press Office", key, authority_key, days, False, **usage),
        certificate("Authority", authority_key, authority_key, (-9, 90), True),
    ]
    (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(PEM) for one in certificates))
    locked = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else None
    locked = locked or serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(PEM, pkcs8, locked))
    return SigningSettings(certificate=folder / "chain.pem", key=folder / "key.pem")


def certificate(name, key, authority_key, days, is_authority, has_purpose=True):
    def named(common):
        pairs = ((NameOID.ORGANIZATION_NAME, "Example Press"), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(*pair) for pair in pairs])

    now, ca = datetime.now(UTC), is_authority
    builder = x509.CertificateBuilder(
        named("Authority"), named(name), key.public_key(), x509.random_serial_number(),
        now + timedelta(days=days[0]), now + timedelta(days=days[1]),
    )  # fmt: skip
    extensions = [
        x509.BasicConstraints(ca, None),
        x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
    ]
    if has_purpose and not ca:
        extensions.append(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]))
    for extension in extensions:
        builder = builder.add_extension(extension, isinstance(extension, x509.KeyUsage))
    return builder.sign(authority_key, hashes.SHA256())


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_operators_key_signs_whatever_its_kind(algorithm, tmp_path):
    signer = Signer.from_settings(operator_files(tmp_path, KEYS[algorithm]()), tmp_path / "unused")
    assert (signer.identity.algorithm, signer.is_test) == (algorithm, False)
    store = manifests(
        embed_provenance(scene(), SETTINGS, "png", None, signer), "png", root_certificate(signer.identity)
    )
    assert store["validation_state"] == "Trusted"
    signature = store["manifests"][store["active_manifest"]]["signature_info"]
    assert (signature["common_name"], signature["issuer"]) == ("Press Office", "Example Press")
    assert not (tmp_path / "unused").exists(), "no test certificate is made beside the operator's"


def test_a_locked_key_opens_with_the_passphrase_of_the_environment_alone(tmp_path, monkeypatch):
    settings = operator_files(tmp_path, KEYS["es256"](), passphrase="open sesame")
    with pytest.raises(SettingError, match="passphrase_variable"):
        Signer.from_settings(settings, tmp_path)
    monkeypatch.setenv("LENS_SIGNING_PASSPHRASE", "wrong")
    with pytest.raises(SettingError, match=r"signing\.key"):
        Signer.from_settings(settings, tmp_path)
    monkeypatch.setenv("LENS_SIGNING_PASSPHRASE", "open sesame")
    assert not Signer.from_settings(settings, tmp_path).is_test


def test_what_is_wrong_with_the_operators_files_is_said_when_the_server_starts(tmp_path):
    good = operator_files(tmp_path, KEYS["es256"]())
    (tmp_path / "other.pem").write_bytes(
        KEYS["es256"]().private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "text.pem").write_text("no certificate")
    wrong = {
        "key of the first certificate": good.model_copy(update={"key": tmp_path / "other.pem"}),
        "a PEM file with a private key": good.model_copy(update={"key": tmp_path / "text.pem"}),
        "a PEM file of certificates": good.model_copy(update={"certificate": tmp_path / "text.pem"}),
        "a file that can be read": good.model_copy(update={"key": tmp_path / "none.pem"}),
    }
    for says, settings in wrong.items():
        with pytest.raises(SettingError, match=says):
            Signer.from_settings(settings, tmp_path)
    with pytest.raises(SettingError, match="go together"):
        SigningSettings.of({"certificate": "chain.pem"})


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_a_certificate_out_of_its_time_does_not_sign(days, tmp_path):
    with pytest.raises(SettingError, match="valid today"):
        Signer.from_settings(operator_files(tmp_path, KEYS["es256"](), days=days), tmp_path)


def test_a_certificate_that_c2pa_does_not_accept_is_refused_when_the_server_starts(tmp_path):
    settings = operator_files(tmp_path, KEYS["es256"](), has_purpose=False)
    read_identity(settings.certificate, settings.key)
    with pytest.raises(LensError, match="cannot be signed"):
        Signer.from_settings(settings, tmp_path)


@pytest.mark.parametrize(("module", "package"), [("c2pa", "c2pa-python"), ("cryptography", "cryptography")])
def test_a_missing_package_is_an_error_that_says_what_to_install(module, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LensError, match=rf'needs the package {package}\..*pip install .*"\.\[serve\]"'):
        Signer.from_settings(SigningSettings(), tmp_path)
