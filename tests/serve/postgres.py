"""A real PostgreSQL for tests: a cluster in a temporary folder, reached by a socket inside it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

SERVER_ACCOUNT = "postgres"


def binary(name):
    """Return where a program of PostgreSQL lies; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(found[0]) if found else None)


def missing():
    """Return what keeps PostgreSQL from running here; None where nothing does."""
    if not all(binary(name) for name in ("initdb", "pg_ctl")):
        return "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and SERVER_ACCOUNT not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"root cannot run PostgreSQL, and there is no account {SERVER_ACCOUNT}"
    return None


@contextmanager
def postgres():
    """Start a cluster; yields the URL of its database. Stopped and removed at the end."""
    with cluster() as running:
        yield running.url


@contextmanager
def cluster():
    """Start a cluster; yields its URL, and `kill` and `start`. Stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lens-pg-", dir="/tmp"))  # a socket's path must be short
    as_account = []
    if os.geteuid() == 0:
        shutil.chown(folder, SERVER_ACCOUNT)
        as_account = ["runuser", "-u", SERVER_ACCOUNT, "--"]

    def call(name, *arguments):
        command = [*as_account, binary(name), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60)

    try:
        call("initdb", "-U", "lens", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB"
        start = partial(call, "pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        kill = partial(call, "pg_ctl", "-w", "-m", "immediate", "stop")
        start()
        try:
            url = f"postgresql+psycopg://lens@/postgres?host={folder}"
            yield SimpleNamespace(url=url, kill=kill, start=start)
        finally:
            kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
