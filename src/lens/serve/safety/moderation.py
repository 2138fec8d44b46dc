"""Moderation of prompts and images by the operator's policy file, with an audit log of refusals.

Word rules and an endpoint with OpenAI's moderation API check prompts; NudeNet and that endpoint check images.
All but the word rules are off unless the policy enables them. If a check or its record fails, the request is
refused. Negative prompts are not moderated.
Knows nothing of HTTP servers, jobs or models.
"""

import io
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self
from uuid import uuid4

import httpx2
from PIL import Image
from pydantic import Field, model_validator

from lens.config import Settings, read_recipe
from lens.errors import LensError, ModerationError, SettingError
from lens.llm.client import RETRYABLE_STATUSES, image_part
from lens.reasoner.outcome import Reasoned
from lens.reasoner.refusal import RefusalPolicy
from lens.serve.safety.word_filter import WordRule, find_refusing_rule

if TYPE_CHECKING:
    from lens.data.scorers.nudenet import NudeNetScorer

logger = logging.getLogger(__name__)

DEFAULT_POLICY = Path(__file__).parent / "policy.yaml"
MAX_IMAGE_SIDE_PX = 1024
"""Images are reduced to this size for an endpoint."""
MAX_RESPONSE_BYTES = 2**20
"""Maximum size of an endpoint's response."""
ModerationTarget = Literal["prompt", "picture"]
"""As the audit log names them."""


class NudeNetRule(Settings):
    """Refuses images in which NudeNet detects explicit nudity."""

    refuse_at: float = Field(0.5, gt=0, le=1)
    """Minimum probability of the most certain explicit part; the detector reports from 0.25."""
    reason: str = "It shows nudity, which this server does not return."
    num_threads: int = Field(1, gt=0)


class ModerationEndpointSettings(Settings):
    """An endpoint that implements POST /moderations of OpenAI's API."""

    url: str
    """Base URL, without `/moderations`, such as http://127.0.0.1:8001/v1."""
    model: str | None = None
    """Model name in requests; None leaves the choice to the endpoint."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable of the API key; if it is not set, no key is sent."""
    checks: tuple[Literal["prompts", "pictures"], ...] = ("prompts",)
    limits: dict[str, float] = Field(default_factory=dict)
    """Lowest refused score by category; without limits, the endpoint's flags decide."""
    reason: str = "It violates this server's policy"
    """The message to the caller; the categories are appended."""
    when_down: Literal["refuse", "allow"] = "refuse"
    """What happens while the endpoint does not answer."""
    timeout_s: float = Field(10.0, gt=0)
    """Of one attempt."""
    max_attempts: int = Field(2, ge=1)
    wait_s: float = Field(0.5, ge=0)
    """Pause between attempts."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if not self.url.startswith(("http://", "https://")):
            raise SettingError("endpoint.url", self.url, "to begin with http:// or https://")
        return self


class AuditSettings(Settings):
    """Audit log of refusals, one JSON object per line."""

    file: Path | None = None
    """Relative to the policy file; None is the server's default."""
    with_prompt: bool = False
    """Whether a record contains the prompt."""


class PolicySettings(Settings):
    """The keys of a policy file."""

    prompts: tuple[WordRule, ...] = ()
    nudenet: NudeNetRule | None = None
    endpoint: ModerationEndpointSettings | None = None
    reasoner: RefusalPolicy = RefusalPolicy()
    """What a reasoner refuses, and what happens while its model does not answer."""
    audit: AuditSettings = AuditSettings()


class Refusal(NamedTuple):
    """Source and reason of a refusal."""

    source: str
    reason: str


class ModerationPolicy:
    """Checks prompts and images; safe to share among threads."""

    def __init__(self, settings: PolicySettings, audit_file: Path | None = None):
        self.settings = settings
        self._audit = AuditLog(settings.audit.file or audit_file)
        self._endpoint = ModerationClient(settings.endpoint) if settings.endpoint else None
        self._is_endpoint_down = False
        # Fails now if a package is missing, not at the first image.
        self._nudenet = _nudenet(settings.nudenet) if settings.nudenet else None

    @classmethod
    def from_file(cls, file: Path | None = None, audit_file: Path | None = None) -> Self:
        """Return the policy of a YAML file, or the default policy.

        Refusals are recorded in the file that the policy names, else in `audit_file`, else in the log.
        Raises: SettingError; LensError for a missing package.
        """
        path = DEFAULT_POLICY if file is None else Path(file)
        if not path.is_file():
            raise SettingError("policy", str(path), "the path of a YAML file")
        settings = PolicySettings.of(read_recipe(path, setting="policy"), source=str(path))
        if settings.audit.file is not None:
            audit = settings.audit.model_copy(update={"file": path.parent / settings.audit.file})
            settings = settings.model_copy(update={"audit": audit})
        return cls(settings, audit_file)

    @property
    def checks_images(self) -> bool:
        """Whether `check_image` checks anything."""
        endpoint = self.settings.endpoint
        return bool(self.settings.nudenet or (endpoint and "pictures" in endpoint.checks))

    def check_prompt(self, text: str, user: str = "") -> None:
        """Return if a prompt is allowed. `user` is for the record.

        Raises: ModerationError with the reason; LensError if a refusal cannot be recorded.
        """
        rule = find_refusing_rule(self.settings.prompts, text)
        if rule is not None:
            reason = rule.reason or f"It matches rule {rule.name} of this server's policy."
            self._refuse("prompt", Refusal(f"rule {rule.name}", reason), user, text)
        if self._endpoint and "prompts" in self._endpoint.settings.checks:
            whole = text.encode(errors="replace").decode()  # a lone surrogate cannot be sent
            self._check_with_endpoint("prompt", whole, user, text)

    def check_image(self, image: Image.Image, user: str = "") -> None:
        """Return if an image or a preview is allowed.

        Raises: ModerationError with the reason; LensError if a refusal cannot be recorded.
        """
        rule = self.settings.nudenet
        if rule and self._nudenet:
            (row,) = self._nudenet.score([image.convert("RGB")])
            if row["nsfw"] >= rule.refuse_at:
                self._refuse("picture", Refusal("nudenet", rule.reason), user, None)
        if self._endpoint and "pictures" in self._endpoint.settings.checks:
            self._check_with_endpoint("picture", [_image_content_part(image)], user, None)

    def record_refusal(self, reasoned: Reasoned, user: str) -> str:
        """Record that a reasoner refused a prompt, and return the record's id.

        The words of a model may repeat the prompt, so they are recorded only where the prompt is.
        Raises: LensError if it cannot be recorded.
        """
        category = f"category {reasoned.category}" if reasoned.category else "no category"
        words = reasoned.reason if self.settings.audit.with_prompt and reasoned.reason else category
        by = f"reasoner {reasoned.model or 'unknown'}"
        fields = {"category": reasoned.category}
        return self._record("refused", "prompt", Refusal(by, words), user, reasoned.original, **fields)

    def close(self) -> None:
        if self._endpoint:
            self._endpoint.close()

    def _check_with_endpoint(
        self, target: ModerationTarget, content: str | list[dict[str, Any]], user: str, prompt: str | None
    ) -> None:
        assert self._endpoint is not None
        try:
            refusal = self._endpoint.check(content)
        except EndpointUnavailableError as error:
            refusal_when_down = Refusal("endpoint", f"The moderation endpoint is not available. {error}")
            if self._endpoint.settings.when_down == "refuse":
                logger.warning("moderation is not available, the request is refused: %s", error)
                message = "Moderation is not available. Try again later."
                self._refuse(
                    target,
                    refusal_when_down._replace(reason=message),
                    user,
                    prompt,
                    str(error),
                    is_unavailable=True,
                )
            if not self._is_endpoint_down:
                logger.warning("moderation is not available, requests pass unchecked: %s", error)
            self._is_endpoint_down = True
            self._record("unchecked", target, refusal_when_down, user, prompt)
            return
        self._is_endpoint_down = False
        if refusal is not None:
            self._refuse(target, refusal, user, prompt)

    def _refuse(
        self,
        target: ModerationTarget,
        refusal: Refusal,
        user: str,
        prompt: str | None,
        cause: str | None = None,
        is_unavailable: bool = False,
    ) -> NoReturn:
        record = self._record("refused", target, refusal, user, prompt, cause=cause)
        what = "image" if target == "picture" else target
        raise ModerationError(what, refusal.reason, refusal.source, record, is_unavailable)

    def _record(
        self,
        decision: str,
        target: ModerationTarget,
        refusal: Refusal,
        user: str,
        prompt: str | None,
        **others: str | None,
    ) -> str:
        fields = {
            "decision": decision,
            "what": target,
            "by": refusal.source,
            "reason": refusal.reason,
            "user": user,
        }
        fields |= {name: text for name, text in others.items() if text is not None}
        if prompt is not None and self.settings.audit.with_prompt:
            fields["prompt"] = prompt
        return self._audit.write(fields)


class AuditLog:
    """Appends records to a file; opens it for each record, so that it can be rotated at any time."""

    def __init__(self, file: Path | None):
        self.file = file
        self._lock = threading.Lock()

    def write(self, fields: Mapping[str, Any]) -> str:
        """Append a record and return its id.

        Raises: LensError if the file cannot be written to.
        """
        record_id = uuid4().hex[:12]
        line = json.dumps(
            {"id": record_id, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        )
        if self.file is None:
            logger.info("moderation: %s", line)
            return record_id
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, open(self.file, "ab", opener=_open_private) as file:
                file.write(f"{line}\n".encode())
        except OSError as error:
            why = error.strerror or error
            raise LensError(f"A refusal cannot be recorded in {self.file}: {why}.") from error
        return record_id


class EndpointUnavailableError(LensError):
    """A moderation endpoint that did not answer."""


class ModerationClient:
    """Client of a moderation endpoint."""

    def __init__(self, settings: ModerationEndpointSettings):
        self.settings = settings
        key = os.environ.get(settings.api_key_variable)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=settings.timeout_s)
        self._url = f"{settings.url.rstrip('/')}/moderations"

    def check(self, content: str | list[dict[str, Any]]) -> Refusal | None:
        """Return the refusal of the endpoint; None if the content is allowed.

        Raises: EndpointUnavailableError.
        """
        body = {"input": content} | ({"model": self.settings.model} if self.settings.model else {})
        for attempt in range(self.settings.max_attempts):
            try:
                return self._attempt(body)
            except _TransientError as error:
                if attempt + 1 == self.settings.max_attempts:
                    raise EndpointUnavailableError(str(error)) from error
            time.sleep(self.settings.wait_s)
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._client.close()

    def _attempt(self, body: dict[str, Any]) -> Refusal | None:
        timeout_message = f"{self._url} did not answer within {self.settings.timeout_s:g} s."
        deadline = time.monotonic() + self.settings.timeout_s
        content = bytearray()
        try:
            with self._client.stream("POST", self._url, json=body) as response:
                for part in response.iter_bytes():
                    content += part
                    # The client's own timeout is for each part; a slow response would never exceed it.
                    if time.monotonic() > deadline or len(content) > MAX_RESPONSE_BYTES:
                        raise _TransientError(timeout_message)
        except httpx2.TimeoutException as error:
            raise _TransientError(timeout_message) from error
        except httpx2.HTTPError as error:
            raise _TransientError(f"{self._url} cannot be reached ({error}).") from error
        status = response.status_code
        if status in RETRYABLE_STATUSES or status >= 500:
            raise _TransientError(f"{self._url} returned status {status}.")
        if status != 200:
            hint = f" Check the key in {self.settings.api_key_variable}." if status in (401, 403) else ""
            raise EndpointUnavailableError(f"{self._url} returned status {status}.{hint}")
        try:
            categories = flagged_categories(json.loads(content), self.settings.limits)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _TransientError(
                f"{self._url} returned a malformed moderation response ({error!r})."
            ) from error
        if categories is None:
            return None
        return Refusal("endpoint", f"{self.settings.reason}{f': {categories}' if categories else ''}.")


class _TransientError(Exception):
    """A failure that another attempt may avoid."""


def flagged_categories(answer: Mapping[str, Any], limits: Mapping[str, float]) -> str | None:
    """Return the flagged categories of a moderation response, separated by commas; None if not flagged.

    Raises: LookupError, TypeError or AttributeError for a malformed response.
    """
    results = answer["results"]
    if not results:
        raise LookupError("results")
    categories: set[str] = set()
    is_flagged = False
    for result in results:
        if limits:
            scores = {name: float(result["category_scores"][name]) for name in limits}
            exceeded = {name for name, score in scores.items() if score >= limits[name]}
        else:
            if not isinstance(result["flagged"], bool):
                raise TypeError("flagged")
            exceeded = {name for name, value in (result.get("categories") or {}).items() if value is True}
            exceeded = exceeded if result["flagged"] else set()
            is_flagged |= result["flagged"]
        categories |= exceeded
    return ", ".join(sorted(categories)) if is_flagged or categories else None


def _nudenet(rule: NudeNetRule) -> "NudeNetScorer":
    from lens.data.scorers.nudenet import NudeNetSettings

    return NudeNetSettings(num_threads=rule.num_threads).create_scorer()


def _image_content_part(image: Image.Image) -> dict[str, Any]:
    small, content = image.convert("RGB"), io.BytesIO()
    small.thumbnail((MAX_IMAGE_SIDE_PX, MAX_IMAGE_SIDE_PX))
    small.save(content, "JPEG", quality=90)
    return image_part(content.getvalue(), "image/jpeg")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
