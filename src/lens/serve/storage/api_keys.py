"""API keys, stored as hashes, and rate limits of callers.

A key has 256 random bits, so that a plain SHA-256 protects it. Knows nothing of HTTP.
"""

import hashlib
import secrets
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from lens.errors import QueueFullError, SettingError

if TYPE_CHECKING:
    from lens.serve.storage.database import Database

KEY_PREFIX = "lens-"


class ApiKey(NamedTuple):
    """A stored key."""

    id: str
    name: str
    requests_per_minute: int | None
    created_at: float


def check_key(name: str, requests_per_minute: int | None = None) -> None:
    """Raise SettingError for a name or a rate limit that no key can have."""
    if not name.strip() or len(name) > 80:
        raise SettingError("NAME", name, "1 to 80 characters")
    if requests_per_minute is not None and requests_per_minute < 1:
        raise SettingError("--requests-per-minute", requests_per_minute, "1 or more")


class ApiKeyStore:
    """The API keys of a server."""

    def __init__(self, database: "Database"):
        self._engine = database.engine
        self._table = database.tables["keys"]

    def add(self, name: str, requests_per_minute: int | None = None) -> str:
        """Create a key and return it; it cannot be read later.

        Raises: SettingError for an empty name or one in use.
        """
        from sqlalchemy.exc import IntegrityError

        check_key(name, requests_per_minute)
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        row = {"id": f"key_{uuid4().hex}", "name": name, "sha256": _hash(key), "created_at": time.time()}
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    self._table.insert().values(**row, requests_per_minute=requests_per_minute)
                )
        except IntegrityError as error:
            raise SettingError("name", name, "a name that no other key has") from error
        return key

    def remove(self, name: str) -> None:
        """Delete a key: requests with it are rejected from now on.

        Raises: SettingError if no key has this name.
        """
        with self._engine.begin() as connection:
            done = connection.execute(self._table.delete().where(self._table.c.name == name))
        if not done.rowcount:
            raise SettingError("name", name, "the name of a key", "See `lens keys list`.")

    def list_keys(self) -> list[ApiKey]:
        """Return the keys, oldest first."""
        columns = [self._table.c[name] for name in ApiKey._fields]
        with self._engine.connect() as connection:
            rows = connection.execute(self._table.select().with_only_columns(*columns).order_by("created_at"))
            return [ApiKey(*row) for row in rows]

    def find(self, key: str) -> ApiKey | None:
        """Return the stored key that a caller sent; None if it is not valid."""
        columns = [self._table.c[name] for name in ApiKey._fields]
        query = self._table.select().with_only_columns(*columns).where(self._table.c.sha256 == _hash(key))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else ApiKey(*row)


class RateStatus(NamedTuple):
    """The state of a caller's rate limit."""

    limit: int
    """Requests per minute."""
    remaining: int
    """Requests that are left now."""
    reset_s: float
    """Seconds until all are there again."""


class RateLimitError(QueueFullError):
    """A request above the rate limit of its caller."""

    def __init__(self, message: str, retry_after_s: float, rate: RateStatus):
        super().__init__(message, retry_after_s)
        self.rate = rate


class CallerRateLimiter:
    """Rate limits of callers: a token bucket of one minute's requests for each."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}  # caller -> (requests left, time of that count)
        self._lock = threading.Lock()

    def acquire(self, caller: str, per_minute: int | None) -> RateStatus | None:
        """Count a request and return what is left; None without a limit.

        Raises: RateLimitError above the limit; it says when to retry.
        """
        if per_minute is None:
            return None
        now = time.monotonic()
        with self._lock:
            left, then = self._buckets.get(caller, (float(per_minute), now))
            left = min(float(per_minute), left + (now - then) * per_minute / 60)
            is_allowed = left >= 1
            left -= is_allowed
            self._buckets[caller] = (left, now)
        rate = RateStatus(per_minute, int(left), (per_minute - left) * 60 / per_minute)
        if not is_allowed:
            message = f"This key allows {per_minute} requests per minute."
            raise RateLimitError(message, (1 - left) * 60 / per_minute, rate)
        return rate


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
