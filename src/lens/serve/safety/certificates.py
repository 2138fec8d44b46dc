"""Keys and certificates that sign images: the operator's, or a self-signed one for development.

A self-signed certificate is named a test certificate. It shows that an image is unchanged, but proves no
origin: anyone can create another one with the same name.
Knows nothing of images. Certificates follow C2PA's profile: one of the signer and one of its issuer.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lens.errors import MissingExtraError, SettingError
from lens.files import write_bytes_atomic

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

TEST_ORGANIZATION = "Lens TEST certificate, not for production"
TEST_FILE = "c2pa_test.pem"
TEST_YEARS = 5
RENEWAL_MARGIN = timedelta(days=30)


class SigningIdentity(NamedTuple):
    """Certificates and private key of a signer, as PEM."""

    chain: bytes
    """The signer's certificate, then those of its issuers."""
    key: bytes
    algorithm: str
    """C2PA's name of it, such as es256."""
    is_test: bool

    def __repr__(self) -> str:
        return f"Identity({self.algorithm}, is_test={self.is_test})"  # the key stays out of logs


def read_identity(certificate: Path, key: Path, passphrase: str | None = None) -> SigningIdentity:
    """Return the identity in a PEM file of certificates, the signer's first, and a file of its private key.

    Raises: SettingError for a file that is missing or malformed, a key of another certificate, and a
    certificate that has expired or is not valid yet.
    """
    _check_installed()
    contents = _read_file("signing.certificate", certificate), _read_file("signing.key", key)
    return _parse_identity(*contents, certificate, key, passphrase)


def ensure_test_identity(folder: Path) -> SigningIdentity:
    """Return the test identity of a folder; create one if there is none or it expires soon.

    Raises: LensError if the folder cannot be written to.
    """
    _check_installed()
    path = folder / TEST_FILE
    if path.is_file():
        content = path.read_bytes()
        identity = _parse_identity(content, content, path, path, None, allow_expired=True)
        if _parse_certificates(content, path)[0].not_valid_after_utc - RENEWAL_MARGIN > datetime.now(UTC):
            return identity
    content = _generate_test_pem()
    # If processes race, the last one's file remains; each process signs with its own.
    write_bytes_atomic(path, content, mode=0o600)
    return _parse_identity(content, content, path, path, None)


def _parse_identity(
    certificate: bytes,
    key: bytes,
    certificate_path: Path,
    key_path: Path,
    passphrase: str | None,
    allow_expired: bool = False,
) -> SigningIdentity:
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import NameOID

    chain = _parse_certificates(certificate, certificate_path)
    remedy = "An encrypted key needs its passphrase, in the variable that signing.passphrase_variable names."
    try:
        private = serialization.load_pem_private_key(key, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError) as error:
        needs = f"a PEM file with a private key ({error})"
        raise SettingError("signing.key", str(key_path), needs, remedy) from error
    if private.public_key() != chain[0].public_key():
        needs = f"the key of the first certificate in {certificate_path}"
        raise SettingError("signing.key", str(key_path), needs)
    first, now = chain[0], datetime.now(UTC)
    if not allow_expired and not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        spans = f"{first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d}"
        needs = f"a certificate that is valid today; this one is valid from {spans}"
        raise SettingError("signing.certificate", str(certificate_path), needs)
    pem = serialization.Encoding.PEM
    return SigningIdentity(
        chain=b"".join(one.public_bytes(pem) for one in chain),
        key=private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        algorithm=_algorithm(private, key_path),
        is_test=any(
            one.value == TEST_ORGANIZATION
            for one in first.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        ),
    )


def _algorithm(private: object, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in curves:
        return curves[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    needs = "a key on the curves P-256, P-384 or P-521, an Ed25519 key or an RSA key"
    raise SettingError("signing.key", str(path), needs)


def _parse_certificates(content: bytes, path: Path) -> "list[x509.Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        needs = f"a PEM file of certificates, the signer's first ({error})"
        raise SettingError("signing.certificate", str(path), needs) from error


def _read_file(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(setting, str(path), f"a file that can be read ({error.strerror})") from error


def _check_installed() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Signing images", "cryptography", "serve") from error


def _generate_test_pem() -> bytes:
    """Return a new private key, its certificate and the issuer's certificate, as one PEM text."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _build_test_certificate(
        "Lens TEST authority", authority_key, authority_key, is_authority=True
    )
    signer = _build_test_certificate("Lens TEST signer", key, authority_key, is_authority=False)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return private + signer.public_bytes(pem) + authority.public_bytes(pem)


def _build_test_certificate(
    name: str,
    key: "ec.EllipticCurvePrivateKey",
    authority_key: "ec.EllipticCurvePrivateKey",
    is_authority: bool,
) -> "x509.Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    usage |= {"digital_signature": not is_authority, "key_cert_sign": is_authority, "crl_sign": is_authority}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_test_name(name))
        .issuer_name(_test_name("Lens TEST authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * TEST_YEARS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
    )
    if not is_authority:
        # One of the purposes that C2PA's profile allows.
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _test_name(name: str) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, TEST_ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
