"""A real PostgreSQL for the tests: an embedded one that begins as a copy and lives in memory where it can."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

import psycopg

from cluster.embedded import NEWEST_MAJOR, EmbeddedPostgres, EmbeddedUnavailable, embedded_bin_dir

OLDEST_MAJOR: Final = 14
MEMORY: Final = Path("/dev/shm")
ENOUGH_BYTES: Final = 4 * 2**30
THROWAWAY: Final[Mapping[str, str]] = {
    "max_connections": "100",
    "max_prepared_transactions": "10",
    "max_wal_size": "256MB",
    "shared_buffers": "64MB",
    "wal_level": "logical",
}
"""Settings of a throw-away server: nothing here changes what a query or a trigger does."""


def installations() -> dict[int, Path]:
    """The directories of PostgreSQL programs on this machine, by major version, newest first."""
    found = {}
    for major in range(NEWEST_MAJOR, OLDEST_MAJOR - 1, -1):
        debian = Path(f"/usr/lib/postgresql/{major}/bin")
        with suppress(EmbeddedUnavailable):
            found[major] = embedded_bin_dir(major)
        if (debian / "postgres").exists():
            found.setdefault(major, debian)
    return found


@cache
def asked_major() -> int | None:
    """The version that the environment asks for, where Snapring would take the variable for a setting of its own."""
    major = os.environ.pop("SNAPRING_TEST_POSTGRES", None)
    return int(major) if major else None


def roomy_memory() -> Path | None:
    """A file system in memory, where PostgreSQL makes a database several times faster; None without a fit one."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return None
    fits = shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES
    runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    return MEMORY if fits and runs_programs else None


class Server(EmbeddedPostgres):
    """One PostgreSQL server with data of its own, by default of the version that the tests run on.

    Use as a context manager. ``SNAPRING_TEST_POSTGRES=15`` in the environment runs them on that major version;
    else it is the newest on this machine.
    """

    def __init__(self, programs: Path | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        origin = pristine(programs or _wanted())
        super().__init__(
            _new_directory(),
            bin_dir=origin.programs(),
            template=origin.directory,
            settings={**THROWAWAY, **(settings or {})},
        )
        self._names = count(1)

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return int((self.data / "PG_VERSION").read_text())

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.data_directory

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return self.log_file.read_text(errors="replace")

    def start(self, **settings: str) -> None:
        """Start the server; ``settings`` come on top of those it was made with, from now on."""
        self.settings.update(settings)
        super().start()

    def restart(self, **settings: str) -> None:
        """``stop``, then ``start``."""
        self.stop()
        self.start(**settings)

    def kill9(self) -> None:
        """Crash: every process of the server is killed at once."""
        self.kill()

    def crash(self, **settings: str) -> None:
        """``kill9``, then ``start``, which recovers."""
        self.kill9()
        self.start(**settings)

    def continue_(self) -> None:
        """Undo ``pause``."""
        self.resume()

    def _run(self, program: str, *arguments: str) -> str:
        return self.run(program, *arguments)

    def resetwal(self, *options: str) -> None:
        """Run pg_resetwal on the stopped server."""
        self.run("pg_resetwal", *options, "-D", str(self.data_directory))

    def copy(self, source: str, target: str) -> None:
        """Restore a dump of database ``source`` into ``target``."""
        dump = self.run("pg_dump", self.dsn(source))
        self.run("psql", "-qX", "-v", "ON_ERROR_STOP=1", self.dsn(target), given=dump)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database of its own, empty; its name. It is dropped when the context ends."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            if self.is_running:
                self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, dbname: str = "postgres") -> None:
        """Run one statement as superuser, outside a transaction."""
        with closing(psycopg.connect(self.dsn(dbname), autocommit=True)) as connection:
            connection.execute(statement.encode())


@cache
def pristine(programs: Path) -> EmbeddedPostgres:
    """What every server of a version begins as a copy of. It is never started; the process's end removes it."""
    made = EmbeddedPostgres(_new_directory(), bin_dir=programs)
    made.initialise()
    return made


def _new_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="snapring-", dir=roomy_memory()))


def _wanted() -> Path:
    found, major = installations(), asked_major()
    return found[major] if major else next(iter(found.values()))
