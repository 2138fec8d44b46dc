"""Downloads: each URL is fetched once and leaves its bytes on disk, or the reason of the failure.

Denied hosts are never asked, and an image whose response opts out of machine learning is not kept. Addresses
of a private network are refused unless allowed: an untrusted list of URLs must not reach hosts that only this
machine can.
"""

import hashlib
import ipaddress
import json
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from pydantic import Field

from lens.config import Settings
from lens.files import write_bytes_atomic

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 5
SECONDS_PER_DAY = 24 * 3600
TRANSIENT_REASONS = ("unreachable",)
"""Failures that may have passed when the build is run again."""
RULE_REASONS = ("denied", "opted_out", "private_address", "too_large", "forbidden")
"""Failures that other settings may turn into a download."""
OPT_OUT_DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
"""Directives of the header X-Robots-Tag that opt out."""


class DownloadSettings(Settings):
    """How images are downloaded."""

    concurrency: int = Field(16, gt=0)
    """Concurrent requests of each worker."""
    timeout_s: float = Field(30.0, gt=0)
    """Timeout of connecting, and of each read."""
    max_attempts: int = Field(3, ge=1)
    """Attempts in each run for a URL whose failure may be temporary."""
    retry_days: float = Field(7.0, ge=0)
    """Days after its first failure in which every new run tries an unreachable URL again."""
    max_bytes: int = Field(64 * 2**20, gt=0)
    """Larger responses are not kept."""
    denied_hosts: tuple[str, ...] = ()
    """Hosts, with their subdomains, that are never asked."""
    honours_opt_out: bool = True
    """Whether to respect opt-outs in X-Robots-Tag."""
    allows_private_hosts: bool = False
    """Whether URLs of this machine and its network are allowed."""
    user_agent: str = "lens-t2i data engine"

    @property
    def rules(self) -> list[object]:
        """Return the settings that decide which URLs give an image."""
        return [
            self.max_bytes, [*self.denied_hosts], self.honours_opt_out, self.allows_private_hosts,
            self.user_agent,
        ]  # fmt: skip


class DownloadResult(NamedTuple):
    """The file of a URL, or the reason why there is none."""

    path: Path | None
    reason: str


class DownloadError(Exception):
    """A URL that could not be downloaded; the reason is a word for the ledger."""

    def __init__(self, reason: str, is_retryable: bool = False):
        super().__init__(reason)
        self.reason, self.is_retryable = reason, is_retryable


def download_all(
    urls: Sequence[str], folder: Path, settings: DownloadSettings, sleep: Callable[[float], None] = time.sleep
) -> list[DownloadResult]:
    """Download the URLs that the folder lacks, and return the result of each.

    Failures are remembered too, but for those that may have passed since; see `retry_days`.
    """
    import httpx2

    headers = {"user-agent": settings.user_agent, "accept": "image/*"}
    with (
        httpx2.Client(headers=headers, timeout=settings.timeout_s) as client,
        ThreadPoolExecutor(settings.concurrency) as pool,
    ):
        return list(pool.map(lambda url: _download_cached(client, url, folder, settings, sleep), urls))


def cache_path(url: str, folder: Path) -> Path:
    """Return the path of a downloaded URL."""
    name = hashlib.sha256(url.encode()).hexdigest()
    return folder / name[:2] / name


def _download_cached(
    client: "httpx2.Client", url: str, folder: Path, settings: DownloadSettings,
    sleep: Callable[[float], None],
) -> DownloadResult:  # fmt: skip
    path = cache_path(url, folder)
    failed = path.with_suffix(".failed")
    if path.is_file():
        return DownloadResult(path, "")
    failure = _read_failure(failed)
    if failure is not None and not _is_worth_a_retry(failure, settings):
        return DownloadResult(None, failure["reason"])
    for attempt in range(settings.max_attempts):
        if attempt:
            sleep(2.0 ** (attempt - 1))
        try:
            write_bytes_atomic(path, _download(client, url, settings))
            return DownloadResult(path, "")
        except DownloadError as error:
            reason = error.reason
            if not error.is_retryable:
                break
    first_failed_at = (failure or {}).get("first_failed_at") or time.time()
    facts = {"url": url, "reason": reason, "first_failed_at": first_failed_at, "rules": settings.rules}
    write_bytes_atomic(failed, json.dumps(facts).encode())
    return DownloadResult(None, reason)


def _read_failure(path: Path) -> dict[str, Any] | None:
    """Return what is remembered of a failure; None for nothing."""
    if not path.is_file():
        return None
    return {"first_failed_at": path.stat().st_mtime, "rules": None} | json.loads(path.read_text())


def _is_worth_a_retry(failure: dict[str, Any], settings: DownloadSettings) -> bool:
    if failure["reason"] in TRANSIENT_REASONS:
        return time.time() - failure["first_failed_at"] < settings.retry_days * SECONDS_PER_DAY
    return failure["reason"] in RULE_REASONS and failure["rules"] not in (None, settings.rules)


def _download(client: "httpx2.Client", url: str, settings: DownloadSettings) -> bytes:
    """Return the bytes of a URL, following redirects. Raises: DownloadError."""
    import httpx2

    for _ in range(MAX_REDIRECTS + 1):
        _check_host(url, settings)
        try:
            with client.stream("GET", url, follow_redirects=False) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                return _read_body(response, settings)
        except (httpx2.TransportError, httpx2.InvalidURL, httpx2.DecodingError) as error:
            raise DownloadError("unreachable", not isinstance(error, httpx2.InvalidURL)) from error
    raise DownloadError("too_many_redirects")


def _read_body(response: "httpx2.Response", settings: DownloadSettings) -> bytes:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise DownloadError("unreachable", is_retryable=True)
    if status != 200:
        raise DownloadError("gone" if status in (404, 410) else "forbidden")
    directives = response.headers.get("x-robots-tag", "").lower().replace(";", ",").split(",")
    if settings.honours_opt_out and any(
        one.rpartition(":")[2].strip() in OPT_OUT_DIRECTIVES for one in directives
    ):
        raise DownloadError("opted_out")
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > settings.max_bytes:
            raise DownloadError("too_large")
    return bytes(content)


def _check_host(url: str, settings: DownloadSettings) -> None:
    """Raise DownloadError for a URL that must not be asked."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise DownloadError("bad_address") from error
    if parts.scheme not in ("http", "https") or not host:
        raise DownloadError("bad_address")
    if any(host == denied or host.endswith(f".{denied}") for denied in settings.denied_hosts):
        raise DownloadError("denied")
    if settings.allows_private_hosts:
        return
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DownloadError("unreachable", is_retryable=True) from error
    if any(not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found):
        raise DownloadError("private_address")
