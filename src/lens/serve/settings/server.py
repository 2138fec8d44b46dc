"""Settings of a server: where it listens, where its state lies, what it allows.

From a YAML file, options of `lens serve` on top. Knows nothing of HTTP.
"""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.llm.client import Endpoint
from lens.serve.settings.engine import EngineSettings
from lens.serve.settings.ray import RaySettings


class RequestLimits(Settings):
    """What one caller, and one request, may take."""

    body_bytes: int = Field(64 * 2**20, ge=1024)
    """Largest request, uploaded pictures included."""
    upload_px: int = Field(64_000_000, ge=1)
    """Most pixels of an uploaded picture."""
    picture_px: int | None = Field(None, ge=256)
    """Most pixels of a picture that is drawn; None leaves the model's own limit, 1440 x 1440."""
    prompt_characters: int = Field(32_000, ge=1)
    """Longest prompt; models read its first 512 tokens or so."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Of a key that has no limit of its own; None does not hold callers back."""
    waiting_jobs: int = Field(1000, ge=1)
    """Unfinished jobs of one caller."""


class SigningSettings(Settings):
    """Certificate and key that sign images; a self-signed test certificate without them."""

    certificate: Path | None = None
    """PEM file: the signer's certificate first, then the certificates that issued it."""
    key: Path | None = None
    """PEM file with the private key of the first certificate."""
    passphrase_variable: str = "LENS_SIGNING_PASSPHRASE"
    """Environment variable with the key's passphrase, if it has one."""
    timestamp_url: str | None = None
    """Time stamp authority (RFC 3161), called for each image; None adds no time stamp."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            missing = "signing.key" if self.key is None else "signing.certificate"
            raise SettingError(missing, None, "a file, as certificate and key go together", "Set both.")
        return self


class PromptEnhancerSettings(Endpoint):
    """Chat endpoint that enhances prompts; callers wait for it, so it times out early."""

    timeout_s: float = Field(30.0, gt=0)
    """Of one attempt."""
    max_attempts: int = Field(2, ge=1)
    """Attempts per prompt, the first included."""


class ServerSettings(Settings):
    """Settings of a server."""

    host: str = "127.0.0.1"
    """Address to listen at. Any but this machine's own needs at least one key."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen at; 0 takes a free one."""
    public_url: str | None = None
    """How callers reach the server, for addresses of pictures; None takes it from each request."""
    state: Path = Path("lens-state")
    """Folder of jobs, pictures and keys."""
    database_url: str | None = None
    """SQLAlchemy URL, such as postgresql+psycopg://...; None is SQLite in the state folder."""
    pictures_url: str | None = None
    """Where pictures lie, any URL of fsspec; None is a folder in the state folder."""
    name: str = "server"
    """Of servers that share a database each needs its own; a server goes on with the jobs of its name."""
    models: tuple[str, ...] = ("lens-nano-turbo", "lens-nano", "lens-nano-base")
    """Models that are offered, by name or folder; the first is that of requests that name none."""
    loras: dict[str, Path] = Field(default_factory=dict)
    """LoRA files that are offered, by the name that requests give."""
    require_key: bool | None = None
    """Whether callers need a key; None asks for one as soon as one was made."""
    cors_origins: tuple[str, ...] = ()
    """Web origins whose pages may call the server."""
    jobs_at_once: int = Field(16, ge=1)
    """Jobs that are handed to the engine at a time; the others wait in the database."""
    keep_jobs_days: float | None = Field(None, gt=0)
    """Finished jobs and their pictures are deleted after this; None keeps them."""
    drain_s: float = Field(120.0, ge=0)
    """How long a server that ends waits for what it took on."""
    policy: Path | None = None
    """YAML file of what is refused; None takes the package's own."""
    is_signing: bool = True
    """Whether pictures leave with a signed manifest."""
    signing: SigningSettings = SigningSettings()
    enhance: PromptEnhancerSettings | None = None
    """Language model that writes prompts out; None switches `enhance` off."""
    limits: RequestLimits = RequestLimits.of({})
    engine: EngineSettings = EngineSettings.of({})
    ray: RaySettings | None = None
    """Engines on Ray Serve; None is one engine in the server's own process."""

    @property
    def effective_database_url(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.state.absolute() / 'lens.sqlite'}"

    @property
    def effective_images_url(self) -> str:
        """URL of the pictures."""
        return self.pictures_url or str(self.state.absolute() / "pictures")

    @property
    def uploads_folder(self) -> Path:
        """Folder of the pictures that callers sent."""
        return self.state.absolute() / "uploads"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def needs_key(self, has_key: bool) -> bool:
        """Return whether callers have to show a key."""
        return has_key or not self.is_local if self.require_key is None else self.require_key

    def check_exposure(self, has_key: bool) -> None:
        """Raise SettingError where others could reach a server that asks for no key."""
        if not self.is_local and not (has_key and self.needs_key(has_key)):
            fix = "Make one with `lens keys add NAME` (and leave require_key alone), or use 127.0.0.1."
            raise SettingError("host", self.host, "a key, as other machines can reach it", fix)
