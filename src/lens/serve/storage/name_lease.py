"""The name of a server among those that share its database: a lease, so that no two running ones share it.

A server without a name of its own gets one that is made up once and kept in its state folder, so that it
resumes its jobs after a restart. The folder, not the name, tells servers apart: a server that was killed gets
its name back at once. Knows nothing of jobs.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from lens.errors import SettingError
from lens.files import write_bytes_atomic

if TYPE_CHECKING:
    from lens.serve.storage.database import Database

LEASE_S = 20.0
"""A server that does not renew its leases for this long is taken for dead."""


class NameLease:
    """The name under which a server claims jobs."""

    def __init__(self, database: "Database", folder: Path, name: str | None):
        self._engine, self._table = database.engine, database.tables["servers"]
        self._instance = _instance_of(folder)
        self.name = name or f"server-{self._instance[:12]}"

    def acquire(self) -> None:
        """Take the name, or renew the lease of it.

        Raises: SettingError if another running server has the name; errors of the database.
        """
        from sqlalchemy.exc import IntegrityError

        table, now = self._table, time.time()
        is_free = (table.c.instance == self._instance) | (table.c.lease_until < now)
        row = {"name": self.name, "instance": self._instance, "lease_until": now + LEASE_S}
        try:
            with self._engine.begin() as connection:
                connection.execute(table.delete().where((table.c.name == self.name) & is_free))
                connection.execute(table.insert().values(**row))
        except IntegrityError as error:
            needs = "a name that no other running server of this database has"
            fix = f"Choose another, or wait {LEASE_S:g} s if that server was stopped just now."
            raise SettingError("name", self.name, needs, fix) from error

    def release(self) -> None:
        """Give the name up. Raises: errors of the database."""
        table = self._table
        is_ours = (table.c.name == self.name) & (table.c.instance == self._instance)
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(is_ours))


def _instance_of(folder: Path) -> str:
    """Return the identity of the server of a state folder, made up at its first start."""
    path = folder / "server_id"
    text = path.read_text().strip() if path.is_file() else ""
    if not text:
        text = uuid4().hex
        write_bytes_atomic(path, text.encode(), mode=0o600)
    return text
