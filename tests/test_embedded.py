"""The embedded PostgreSQL: started, stopped, crashed, paused, and nothing left behind."""

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cluster import embedded
from cluster.embedded import EmbeddedPostgres, EmbeddedUnavailable, embedded_bin_dir
from servers import roomy_memory


@pytest.fixture(scope="module", autouse=True)
def _in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The system's temporary directory is in memory, where it can be."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(roomy_memory() or tempfile.gettempdir()))
        yield


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """The directory of a server that never ran."""
    pristine = EmbeddedPostgres()
    try:
        pristine.initialise()
        yield pristine.directory
    finally:
        pristine.close()


@pytest.fixture(scope="module")
def postgres(template: Path) -> Iterator[EmbeddedPostgres]:
    """A running embedded PostgreSQL; every test leaves it running."""
    with EmbeddedPostgres(template=template, settings={"track_commit_timestamp": "on"}) as running:
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


def test_its_first_start_takes_another_port_where_somebody_has_taken_its_own(template: Path) -> None:
    """Also where its directory has been made before. From then on it is known by its port, and keeps it."""
    with closing(EmbeddedPostgres(template=template)) as postgres:
        postgres.initialise()
        with socket.create_server(("127.0.0.1", postgres.port)) as taken:
            postgres.start()
            assert postgres.port != taken.getsockname()[1]
        port = postgres.port
        postgres.stop()
        in_use = pytest.raises(EmbeddedUnavailable, match="Address already in use")
        with socket.create_server(("127.0.0.1", port)), in_use:
            postgres.start()
        assert postgres.port == port


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


def test_a_setting_takes_effect_at_the_next_start(postgres: EmbeddedPostgres) -> None:
    """So a test may bring its server back as another one."""
    postgres.settings["work_mem"] = "5MB"
    postgres.stop()
    assert not postgres.is_running
    postgres.start()
    assert postgres.is_running
    assert _one(postgres.dsn(), "SHOW work_mem") == "5MB"


def test_another_user_gets_in_where_it_may(postgres: EmbeddedPostgres) -> None:
    """The socket trusts whoever reaches it; TCP wants a password that such a URL does not have."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute('CREATE ROLE "some one" LOGIN')
    assert _one(postgres.dsn(user="some one"), "SELECT current_user") == "some one"
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        _one(postgres.dsn(user="some one", tcp=True), "SELECT 1")


def test_runs_the_programs_that_came_with_the_server(postgres: EmbeddedPostgres) -> None:
    """They get their input and their output comes back; what they complain of is raised."""
    assert postgres.run("psql", "-qXAt", postgres.dsn(), given="SELECT 'grün'") == "grün\n"
    with pytest.raises(EmbeddedUnavailable, match=r'psql failed:\n.*"nowhere" does not exist'):
        postgres.run("psql", "-X", postgres.dsn("nowhere"))


def test_begins_as_a_copy_of_its_template() -> None:
    """What the template holds is there, what comes later stays apart, and each has the same password."""
    with EmbeddedPostgres() as original:
        with psycopg.connect(original.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        original.stop()
        with EmbeddedPostgres(template=original.directory) as copied:
            with psycopg.connect(copied.dsn(tcp=True), autocommit=True) as connection:
                connection.execute("UPDATE kept SET n = 2")
            original.start()
            assert _one(copied.dsn(), "SELECT n FROM kept") == 2
            assert _one(original.dsn(), "SELECT n FROM kept") == 1
        assert original.data_directory.exists()


def test_follows_another_server_until_promoted(postgres: EmbeddedPostgres) -> None:
    """A standby of a running server has its rows, then those that come, and takes writes once promoted."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE followed AS SELECT 1 AS n")
        standby = EmbeddedPostgres()
        try:
            standby.follow(postgres)
            connection.execute("INSERT INTO followed VALUES (2)")
            standby.start()
            while _one(standby.dsn(tcp=True), "SELECT count(*) FROM followed") != 2:
                pass
            assert _one(standby.dsn(), "SELECT pg_promote()") is True
            assert _one(standby.dsn(), "INSERT INTO followed VALUES (3) RETURNING n") == 3
        finally:
            standby.close()


def test_an_environment_is_the_servers_alone(template: Path) -> None:
    """What is given for the server reaches its processes, and nobody else's."""
    with EmbeddedPostgres(template=template, environment={"GIVEN": "to the server"}) as running:
        with psycopg.connect(running.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE told (line text)")
            connection.execute("COPY told FROM PROGRAM 'printenv GIVEN'")
        assert _one(running.dsn(), "SELECT line FROM told") == "to the server"
    assert "GIVEN" not in os.environ


def test_copies_no_server_that_runs(postgres: EmbeddedPostgres) -> None:
    """Its files are not of one moment."""
    with pytest.raises(EmbeddedUnavailable, match="stop it"), EmbeddedPostgres(template=postgres.directory):
        pass


def test_removes_its_directory_at_the_end(template: Path) -> None:
    """Leaving the context ends the server and leaves nothing on disk."""
    with EmbeddedPostgres(template=template) as running:
        pid, home = running.pid, running.directory
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
def test_root_names_a_directory_that_the_account_cannot_reach() -> None:
    """A directory below a closed one is refused with the remedy, and its parents stay closed."""
    with tempfile.TemporaryDirectory() as folder:  # a short path: a unix socket would lie below it
        closed = Path(folder)
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


def test_reports_why_the_server_did_not_start(template: Path) -> None:
    """A setting that PostgreSQL refuses ends in its own words, not in a timeout."""
    server = EmbeddedPostgres(template=template, settings={"shared_buffers": "nonsense"})
    try:
        with pytest.raises(EmbeddedUnavailable, match="shared_buffers"):
            server.start()
    finally:
        server.close()
