"""The embedded PostgreSQL: started, stopped, crashed, paused, and nothing left behind."""

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cluster import embedded
from cluster.embedded import EmbeddedPostgres, EmbeddedUnavailable, embedded_bin_dir


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running embedded PostgreSQL; every test leaves it running."""
    with EmbeddedPostgres(settings={"track_commit_timestamp": "on"}) as running:
        yield running


def _one(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row and row[0]


def _greeting(port: int) -> bytes:
    """What the server answers to a client that asks for TLS, which it does not have: ``N``."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as client:
        client.sendall(struct.pack("!ii", 8, 80_877_103))
        return client.recv(1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_on_its_socket_and_on_loopback(postgres: EmbeddedPostgres) -> None:
    """Both URLs reach the same server, whose settings are those asked for."""
    assert _one(postgres.dsn(), "SHOW track_commit_timestamp") == "on"
    assert _one(postgres.dsn(tcp=True), "SHOW port") == str(postgres.port)


def test_refuses_tcp_without_the_password(postgres: EmbeddedPostgres) -> None:
    """Another account of the machine that finds the port does not get in."""
    url = f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        _one(url, "SELECT 1")


def test_only_the_owner_may_enter_the_socket_directory(postgres: EmbeddedPostgres) -> None:
    """The socket trusts who reaches it, so nobody else may."""
    directory = Path(str(conninfo_to_dict(postgres.dsn())["host"]))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_clean_stop_keeps_the_data(postgres: EmbeddedPostgres) -> None:
    """What was written is there after stop and start, at the same address."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    pid = postgres.pid
    postgres.stop()
    assert not _alive(pid)
    postgres.start()
    assert _one(postgres.dsn(), "SELECT n FROM kept") == 1


def test_a_crash_is_recovered_from(postgres: EmbeddedPostgres) -> None:
    """After `kill`, with a session open, `start` recovers; committed rows stay, unlogged ones go."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE logged AS SELECT 1 AS n")
        connection.execute("CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS n")
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres.start()
    assert _one(postgres.dsn(), "SELECT count(*) FROM logged") == 1
    assert _one(postgres.dsn(), "SELECT count(*) FROM unlogged") == 0


def test_a_paused_server_is_silent_until_resumed(postgres: EmbeddedPostgres) -> None:
    """While paused the port accepts and nobody speaks; afterwards an old session goes on."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        assert _greeting(postgres.port) == b"N"
        postgres.pause()
        try:
            with pytest.raises(TimeoutError):
                _greeting(postgres.port)
        finally:
            postgres.resume()
        assert _greeting(postgres.port) == b"N"
        row = connection.execute("SELECT 1").fetchone()
        assert row == (1,)


def test_removes_its_directory_at_the_end() -> None:
    """Leaving the context ends the server and leaves nothing on disk."""
    with EmbeddedPostgres() as running:
        pid, home = running.pid, running.data_directory.parent
        assert home.exists()
    assert not home.exists()
    assert not _alive(pid)


def test_keeps_a_given_directory_when_told() -> None:
    """With ``keep`` the same directory serves the same data to the next one."""
    directory = Path(tempfile.gettempdir()) / f"snapring-kept-{os.getpid()}"  # any account can reach it
    try:
        with EmbeddedPostgres(directory, keep=True) as running, psycopg.connect(running.dsn()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
            connection.commit()
        with EmbeddedPostgres(directory) as again:
            assert _one(again.dsn(tcp=True), "SELECT n FROM kept") == 7
        assert not directory.exists()
    finally:
        EmbeddedPostgres(directory).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its server to another account")
def test_root_names_a_directory_that_the_account_cannot_reach(tmp_path: Path) -> None:
    """A directory below a closed one is refused with the remedy, and its parents stay closed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedUnavailable, match="temporary directory"):
        EmbeddedPostgres(closed / "postgres").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs its own programs")
def test_programs_out_of_the_accounts_reach_are_copied(tmp_path: Path) -> None:
    """A virtual environment below a closed folder, such as root's home, still works."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "package").symlink_to(embedded_bin_dir().parent)
    with EmbeddedPostgres(bin_dir=closed / "package" / "bin") as running:
        assert _one(running.dsn(), "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_says_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error names it."""
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedUnavailable, match=r"snapring-node\[embedded\]"):
        embedded_bin_dir()


def test_reports_why_the_server_did_not_start() -> None:
    """A setting that PostgreSQL refuses ends in its own words, not in a timeout."""
    server = EmbeddedPostgres(settings={"shared_buffers": "nonsense"})
    try:
        with pytest.raises(EmbeddedUnavailable, match="shared_buffers"):
            server.start()
    finally:
        server.close()
