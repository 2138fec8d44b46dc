"""Settings of a server: address, storage, models, limits, moderation, signing, the reasoner.

They come from a YAML file and the options of `lens serve`. Knows nothing of HTTP.
"""

import ipaddress
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from lens.config import Settings
from lens.core.prompt_text import MAX_PROMPT_CHARACTERS
from lens.errors import SettingError
from lens.models.prompt_date import parse_prompt_date
from lens.prompts.loras import lora_files
from lens.prompts.reading import PromptReader
from lens.reasoner.settings import ReasonerEndpoint, ReasonerSettings
from lens.serve.settings.engine import EngineSettings
from lens.serve.settings.ray import RaySettings

DEFAULT_MODELS = ("lens-nano-turbo", "lens-nano", "lens-nano-base")


class RequestLimits(Settings):
    """Limits of a caller and of a request."""

    body_bytes: int = Field(64 * 2**20, ge=1024)
    """Maximum size of a request, uploaded images included."""
    json_bytes: int = Field(2**20, ge=1024)
    """Maximum size of JSON, without the base64 of images in it."""
    connections: int = Field(512, ge=1)
    """Maximum number of connections; beyond it, the one that has waited longest for a request makes room."""
    header_s: float = Field(10.0, gt=0)
    """Seconds for the headers of a request."""
    stall_s: float = Field(20.0, gt=0)
    """Seconds by which a caller may fall behind `min_bytes_per_s`, with a body or with reading an answer."""
    min_bytes_per_s: int = Field(8192, ge=1)
    """Minimum speed of callers."""
    upload_px: int = Field(16_000_000, ge=1)
    """Maximum pixels of an uploaded image."""
    studio_bytes: int = Field(2**30, ge=2**20)
    """Maximum size of the files that pages of the studio have uploaded; beyond it, the oldest are deleted."""
    picture_px: int | None = Field(None, ge=256)
    """Maximum pixels of a generated image; None is the models' limit, 1440 x 1440."""
    prompt_characters: int = Field(MAX_PROMPT_CHARACTERS, ge=1, le=MAX_PROMPT_CHARACTERS)
    """Maximum length of a prompt; models read about the first 512 tokens."""
    requests_per_minute: int | None = Field(None, ge=1)
    """For keys without a limit of their own; None is no limit."""
    waiting_jobs: int = Field(1000, ge=1)
    """Maximum number of unfinished jobs of a caller."""


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


class ServedModel(Settings):
    """A model of the server: a name, a folder or a denoiser's file, and what replaces its parts."""

    model: str
    """Known name, folder, hub id, denoiser's file or ComfyUI folder."""
    name: str | None = None
    """Name in requests; None is the known name, or the name of the folder or file."""
    text_encoder: Path | None = None
    """File or folder of the text encoder; None is the model's own, or is searched for around a file."""
    vae: Path | None = None
    """File or folder of the VAE, likewise."""
    tokenizer: Path | None = None
    """Folder, tokenizer.json, or text encoder's file with the tokenizer, likewise."""
    prompt_date: str | None = None
    """Date in the conversation around a prompt, or today; None is the model's own."""

    @model_validator(mode="before")
    @classmethod
    def _take_a_name(cls, value: Any) -> Any:
        return {"model": str(value)} if isinstance(value, (str, Path)) else value

    @field_validator("prompt_date", mode="before")
    @classmethod
    def _parse_date(cls, value: Any) -> str | None:
        return None if value is None else parse_prompt_date(value, "models.prompt_date")

    @property
    def served_name(self) -> str:
        """The name in requests."""
        path = Path(self.model).expanduser()
        return self.name or (path.name if path.is_dir() else path.stem if path.is_file() else self.model)


class ServerSettings(Settings):
    """Settings of a server."""

    host: str = "127.0.0.1"
    """Address to listen on. One that other machines can reach needs at least one API key."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""
    public_url: str | None = None
    """URL at which callers reach the server, for image URLs; None takes it from each request."""
    state: Path = Path("lens-state")
    """Folder of jobs, images and API keys."""
    database_url: str | None = None
    """SQLAlchemy URL, such as postgresql+psycopg://...; None is SQLite in the state folder."""
    pictures_url: str | None = None
    """URL of image storage, any that fsspec supports; None is a folder in the state folder."""
    name: str | None = Field(None, min_length=1, max_length=80)
    """A server resumes the jobs of its name; None is a name that is made up and kept in the state folder."""
    models: tuple[ServedModel, ...] = tuple(ServedModel(model=name) for name in DEFAULT_MODELS)
    """Models to serve, each a name, folder or file, or a mapping with its parts; the first is the default."""
    model_aliases: dict[str, str] = Field(default_factory=dict)
    """Further names of models in requests, such as {gpt-image-1: lens}."""
    loras: dict[str, Path] = Field(default_factory=dict)
    """LoRA files to serve, by the name that requests use."""
    lora_folder: Path | None = None
    """Folder whose LoRA files are served under their names; None is loras in the state folder."""
    wildcards: Path | None = None
    """Folder of the files that wildcards in prompts stand for; None is wildcards in the state folder."""
    styles: Path | None = None
    """YAML file of styles, which the studio edits; None is styles.yaml in the state folder."""
    require_key: bool | None = None
    """Whether callers need an API key; None requires one once a key exists."""
    cors_origins: tuple[str, ...] = ()
    """Web origins whose pages may call the server (CORS)."""
    jobs_at_once: int = Field(16, ge=1)
    """Maximum number of running jobs; the others wait in the database."""
    keep_jobs_days: float | None = Field(None, gt=0)
    """Days until finished jobs and their images are deleted; None keeps them."""
    drain_s: float = Field(120.0, ge=0)
    """Maximum time to finish the accepted requests at shutdown."""
    policy: Path | None = None
    """YAML file of the moderation policy; None is the default policy."""
    is_signing: bool = True
    """Whether images get a signed C2PA manifest."""
    signing: SigningSettings = SigningSettings()
    is_enhancing: bool = True
    """Whether requests may ask for `enhance`."""
    enhance: ReasonerSettings | None = None
    """Reasoner that refines or refuses prompts; None leaves models of the nano family the rule engine."""
    limits: RequestLimits = RequestLimits.of({})
    engine: EngineSettings = EngineSettings.of({})
    ray: RaySettings | None = None
    """Engines on Ray Serve; None is one engine in the process of the server."""

    @field_validator("enhance", mode="wrap")
    @classmethod
    def _read_reasoner(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(cls._as_reasoner(value))
        except ValidationError as error:
            for problem in error.errors():
                inner = problem.get("ctx", {}).get("error")
                if isinstance(inner, SettingError):
                    inner.rename(f"enhance.{inner.setting.removeprefix('reasoner.')}")
            raise

    @staticmethod
    def _as_reasoner(value: Any) -> Any:
        """Return {url, model, ...} as the endpoint of a reasoner: settings were written so before."""
        if isinstance(value, bool):
            fix = "To switch it off or on for requests, set is_enhancing."
            raise SettingError("enhance", value, "the settings of a reasoner", fix)
        if not isinstance(value, dict) or "url" not in value:
            return value
        endpoint = {name: one for name, one in value.items() if name in ReasonerEndpoint.model_fields}
        others = {name: one for name, one in value.items() if name not in endpoint}
        return {"backend": "endpoint", **others, "endpoint": endpoint}

    @model_validator(mode="after")
    def _check_reasoner(self) -> Self:
        if self.enhance is not None and self.enhance.backend == "gpt-oss":
            fix = "Serve GPT-OSS with a program such as vLLM, and name its endpoint."
            needs = "endpoint, transformers or nano on a server"
            raise SettingError("enhance.backend", "gpt-oss", needs, fix)
        return self

    @model_validator(mode="after")
    def _check_aliases(self) -> Self:
        names = [model.served_name for model in self.models]
        for alias, name in self.model_aliases.items():
            if name not in names:
                raise SettingError(f"model_aliases.{alias}", name, f"one of models: {', '.join(names)}")
            if alias in names:
                raise SettingError(f"model_aliases.{alias}", name, "a name that no model has")
        return self

    @property
    def served_loras(self) -> dict[str, Path]:
        """LoRA files by name: those of the folder, and those that `loras` names."""
        return lora_files(self.lora_folder or self.state.absolute() / "loras") | self.loras

    @property
    def style_file(self) -> Path:
        """YAML file of styles; it need not exist."""
        return self.styles or self.state.absolute() / "styles.yaml"

    def prompt_reader(self) -> PromptReader:
        """Return what reads prompts, with wildcards and styles as they are now."""
        folder = self.wildcards or self.state.absolute() / "wildcards"
        return PromptReader(folder, self.style_file, "wildcards in the settings of the server", "styles")

    @property
    def effective_database_url(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.state.absolute() / 'lens.sqlite'}"

    @property
    def has_state(self) -> bool:
        """Whether there is a state already: a database elsewhere, or one in the folder."""
        return self.database_url is not None or (self.state / "lens.sqlite").is_file()

    @property
    def effective_images_url(self) -> str:
        """URL of image storage."""
        return self.pictures_url or str(self.state.absolute() / "pictures")

    @property
    def uploads_folder(self) -> Path:
        """Folder of uploaded images."""
        return self.state.absolute() / "uploads"

    def served_model(self, name: str | None) -> str | None:
        """Return the model that a request means by a name, which may be an alias."""
        return self.model_aliases.get(name, name) if name is not None else None

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
        """Return whether callers need an API key."""
        return has_key or not self.is_local if self.require_key is None else self.require_key

    def check_exposure(self, has_key: bool) -> None:
        """Raise SettingError if other machines could reach the server without an API key."""
        if not self.is_local and not (has_key and self.needs_key(has_key)):
            fix = "Create one with `lens keys add NAME` without require_key: false, or use 127.0.0.1."
            raise SettingError("host", self.host, "an API key, as other machines can reach it", fix)
