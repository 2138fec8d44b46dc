"""The database of a server: its tables, and the migrations from older layouts.

SQLite in a file, or PostgreSQL by URL. Migrations define the tables; the layout is read from the database,
so that each column is named once. Knows nothing of jobs or keys.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lens.errors import LensError, MissingExtraError, SettingError
from lens.files import FileWriteError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

MIGRATIONS = Path(__file__).parent / "migrations"
TABLES = ("jobs", "pictures", "keys", "servers")
SQLITE_BUSY_TIMEOUT_S = 15.0


class StorageError(LensError):
    """Storage that fails: a full disk, a read-only database, an unreachable one."""

    def __init__(self, message: str, is_full: bool = False):
        super().__init__(message)
        self.is_full = is_full


class Database:
    """An open database with current tables."""

    def __init__(self, url: str):
        """Open a database and run the migrations that it lacks.

        Raises: MissingExtraError; SettingError for a URL that cannot be used; StorageError.
        """
        try:
            import alembic  # noqa: F401
            import sqlalchemy as sa
            from sqlalchemy import event, exc
        except ImportError as error:
            raise MissingExtraError("Serving", str(error.name), "serve") from error
        try:
            where = sa.make_url(url)
            if where.get_backend_name() == "sqlite" and where.database:
                file = Path(where.database)
                file.parent.mkdir(parents=True, exist_ok=True)
                if not file.exists():
                    file.touch(mode=0o600)  # before SQLite creates it for everybody to read
            options = {"timeout": SQLITE_BUSY_TIMEOUT_S} if where.get_backend_name() == "sqlite" else {}
            # Errors would repeat the values of a statement, prompts among them, and be logged.
            self.engine: Engine = sa.create_engine(
                url, connect_args=options, pool_pre_ping=True, hide_parameters=True
            )
        except ImportError as error:
            raise MissingExtraError("A PostgreSQL database", str(error.name), "postgres") from error
        except exc.ArgumentError as error:
            raise SettingError("database_url", url, "a URL of SQLAlchemy", f"{error}.") from error
        except OSError as error:
            raise StorageError(f"Cannot create the folder of {url}: {error.strerror}.") from error
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
        self.tables: dict[str, Table] = {}
        try:
            with self.engine.begin() as connection:
                if not self._is_current(connection):
                    self._migrate(connection)
                known = sa.MetaData()
                known.reflect(connection, only=TABLES)
                self.tables = {name: known.tables[name] for name in TABLES}
        except exc.DBAPIError as error:
            raise StorageError(f"The database {where} cannot be opened: {_reason(error)}.") from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _is_current(self, connection: "Connection") -> bool:
        from alembic.migration import MigrationContext

        return (
            MigrationContext.configure(connection).get_current_revision()
            == _migration_scripts().get_current_head()
        )

    def _migrate(self, connection: "Connection") -> None:
        from alembic.config import Config
        from alembic.runtime.environment import EnvironmentContext

        script = _migration_scripts()
        if connection.dialect.name == "postgresql":  # only one of several starting servers migrates
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305134)")
        context = EnvironmentContext(Config(), script, fn=lambda at, _: script._upgrade_revs("head", at))  # type: ignore[arg-type]
        with context:
            context.configure(connection=connection)
            context.run_migrations()


def storage_error(error: Exception) -> StorageError | None:
    """Return the StorageError of a database or file system error; None for any other error."""
    import errno

    if isinstance(error, StorageError):
        return error
    if isinstance(error, FileWriteError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, OSError):
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "The server's disk is full" if is_full else "The server cannot read or write its files"
        return StorageError(f"{what} ({error.strerror or error}).", is_full)
    from sqlalchemy import exc

    if isinstance(error, (exc.OperationalError, exc.InternalError, exc.TimeoutError)):
        reason = _reason(error)
        is_full = "full" in reason or "no space" in reason.lower()
        return StorageError(f"The server's database cannot be read or written ({reason}).", is_full)
    return None


def _reason(error: Exception) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _migration_scripts():
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])


def _prepare_sqlite(connection, _record) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")  # with a write-ahead log, a killed process loses nothing
    except Exception:  # a read-only file can still be read
        pass
    cursor.close()
