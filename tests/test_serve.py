"""A node as a process: it says what is wrong at start, serves, and ends in order."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.errors import AdminShutdown, InsufficientPrivilege
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cluster.capture import allow
from cluster.local_nodes import LOOPBACK
from cluster.plans import Plans
from cluster.serve import check_caches
from grpc_doors import Calling, failure
from nodes import WITHIN_S, blocked, captured, config
from scripts.proof.ports import free_port
from snapring.errors import CatalogChanging

USER = '[caches.user]\nsql = "SELECT id, name FROM users WHERE id = $1"\nsingle = true\nencoding = "json"\n'


@asynccontextmanager
async def process(directory: Path, url: str, *settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``snapring node`` with one cache on a free port; killed if it is still there at the end."""
    file = directory / "snapring.toml"
    file.write_text(
        f'[postgres]\nurl = "{url}"\n[resp]\nport = 0\n[grpc]\nport = 0\n[http]\nport = 0\n{USER}'
    )
    running = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).parent / "snapring", "node", "--config", file, *settings),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def line_with(running: asyncio.subprocess.Process, words: Iterable[str]) -> str:
    """The first line of its log that holds one of ``words``."""
    assert running.stderr is not None
    async with asyncio.timeout(WITHIN_S):
        async for raw in running.stderr:
            if any(word in raw.decode() for word in words):
                return raw.decode()
    raise AssertionError(f"the process ended without a word of {words}")


async def client_of(running: asyncio.subprocess.Process) -> Redis:
    """A client, once the node listens."""
    line = await line_with(running, ["answers RESP on"])
    return Redis(port=int(line.strip().rsplit(":", 1)[1]), protocol=3, decode_responses=True)


async def unready(port: int) -> str:
    """Why the node is not ready, as its probes are told."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        return (await reader.read()).decode()
    finally:
        writer.close()


async def test_it_serves_and_ends_cleanly_on_sigterm(database: str, tmp_path: Path) -> None:
    """Start, answer, TERM, exit code 0."""
    async with captured(database), process(tmp_path, database) as running:
        async with await client_of(running) as client:
            assert await client.get("user:7") == '{"id":7,"name":"user 7"}'
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), WITHIN_S) == 0


@pytest.mark.parametrize("section", ["resp", "grpc", "http"])
async def test_a_port_that_is_taken_is_named(database: str, tmp_path: Path, section: str) -> None:
    """By its setting, with what to do."""
    async with captured(database), await asyncio.start_server(print, LOOPBACK) as other:
        port = other.sockets[0].getsockname()[1]
        async with process(tmp_path, database, f"--{section}.port={port}") as running:
            said = await line_with(running, [f"{section}.port:"])
            assert await asyncio.wait_for(running.wait(), WITHIN_S) == 2
    assert f"{LOOPBACK}:{port} is taken: give another, or 0 for any free one" in said


async def test_it_serves_grpc_too_and_ends_with_a_watch_open(database: str, tmp_path: Path) -> None:
    """Its port is in the log; TERM ends the stream with a typed error, and nobody waits for it."""
    async with captured(database), process(tmp_path, database) as running:
        port = (await line_with(running, ["answers gRPC on"])).strip().rsplit(":", 1)[1]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calling = Calling(channel)
            assert (await calling.Get(key="user:7")).value == b'{"id":7,"name":"user 7"}'
            watch = calling.Watch()
            await watch.read()
            running.send_signal(signal.SIGTERM)
            assert (await failure(rest(watch)))[1] == "NODE_STOPPING"
        assert await asyncio.wait_for(running.wait(), WITHIN_S) == 0


async def test_clients_are_let_in_once_the_database_has_been_asked(database: str, tmp_path: Path) -> None:
    """Who comes at once may show a token. Operators are told what the node waits for."""
    port = free_port(LOOPBACK)
    async with captured(database) as writer:
        await writer.execute("BEGIN")
        await writer.execute("LOCK TABLE snapring.marker")
        async with process(tmp_path, database, f"--resp.port={port}") as running:
            operators = int((await line_with(running, ["answers HTTP on"])).strip().rsplit(":", 1)[1])
            await blocked(writer)
            for _ in range(3):
                assert "its first poll is under way" in await unready(operators)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(LOOPBACK, port)
            await writer.execute("ROLLBACK")
            async with await client_of(running) as client:
                assert (await client.info("feed"))["polls"] > 0


async def test_a_door_may_be_left_out(database: str, tmp_path: Path) -> None:
    """Then nothing listens for gRPC."""
    async with captured(database), process(tmp_path, database, "--grpc.port=none") as running:
        line = await line_with(running, ["answers gRPC on", "answers RESP on"])
        assert "RESP" in line


async def rest(stream: Any) -> None:
    """Read until it ends, which is with an error."""
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_those_in_flight_at_the_end_get_an_error(database: str, tmp_path: Path) -> None:
    """A read that waits for a locked table when the node is told to stop is answered, not dropped."""
    async with (
        captured(database) as writer,
        process(tmp_path, database, "--node.drain_timeout=200ms") as running,
    ):
        async with await client_of(running) as client:
            await client.get("user:7")
            async with writer.transaction():
                await writer.execute("LOCK TABLE users")
                waiting = asyncio.create_task(client.get("user:8"))
                await blocked(writer)
                running.send_signal(signal.SIGTERM)
                with pytest.raises(ResponseError, match="NODE_STOPPING"):
                    await waiting
        assert await asyncio.wait_for(running.wait(), WITHIN_S) == 0


async def test_sql_that_cannot_be_exact_stops_the_start(database: str, tmp_path: Path) -> None:
    """Every refused cache is named, and the exit code says configuration."""
    bad = ("--caches.clock.sql=SELECT now()", "--caches.write.sql=DELETE FROM users RETURNING id")
    async with captured(database), process(tmp_path, database, *bad) as running:
        assert running.stderr is not None
        complaint = (await asyncio.wait_for(running.stderr.read(), WITHIN_S)).decode()
        assert await running.wait() == 2
        assert "cache clock" in complaint
        assert "cache write" in complaint
        assert "Traceback" not in complaint


async def test_a_database_out_of_reach_is_said_and_waited_for(tmp_path: Path) -> None:
    """The node starts, its clients get UNAVAILABLE with the reason."""
    url = "postgresql://postgres@127.0.0.1:1/none"
    async with process(tmp_path, url) as running, await client_of(running) as client:
        with pytest.raises(ResponseError, match="UNAVAILABLE"):
            await client.get("user:7")


async def test_a_node_that_is_told_to_stop_while_it_looks_for_the_others_stops(
    database: str, tmp_path: Path
) -> None:
    """It waits for DNS, which has nothing to say, and has no door yet."""
    among = (
        "--peers.discovery=dns:///nodes.invalid:7946",
        "--node.name=127.0.0.1",
        "--node.secrets=0123456789abcdef",
        "--peers.discovery_wait=1h",
    )
    async with captured(database), process(tmp_path, database, *among) as running:
        await line_with(running, ["DNS for nodes.invalid.: "])
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        log = (await asyncio.wait_for(running.stderr.read(), WITHIN_S)).decode()
        assert await running.wait() == 0
        assert "drains" in log
        assert "answers RESP" not in log


@pytest.mark.parametrize(
    "lost", [AdminShutdown("the postmaster ended"), CatalogChanging("DDL follows on DDL")]
)
async def test_a_node_that_loses_postgres_while_it_starts_starts_all_the_same(
    database: str, lost: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would do so if Postgres had never been in reach."""
    monkeypatch.setattr(Plans, "get", failing(lost))
    await check_caches(config(database))
    assert "the node starts and keeps trying" in caplog.text


async def test_a_node_whose_role_lacks_rights_does_not_start(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What trying again does not mend is told."""
    monkeypatch.setattr(Plans, "get", failing(InsufficientPrivilege("permission denied")))
    with pytest.raises(InsufficientPrivilege):
        await check_caches(config(database))


async def test_a_table_that_the_role_may_not_read_is_said_at_start(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the name of the cache, once for each; nothing is said once it is granted."""
    async with captured(database) as owner:
        await owner.execute("DROP ROLE IF EXISTS snapring_unread; CREATE ROLE snapring_unread LOGIN")
        try:
            await allow(owner, "snapring_unread")
            as_role = config(make_conninfo(database, user="snapring_unread"))
            await check_caches(as_role)
            assert "cache user: permission denied for table users" in caplog.text
            caplog.clear()
            await owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO snapring_unread")
            await check_caches(as_role)
            assert caplog.text == ""
        finally:
            await owner.execute("DROP OWNED BY snapring_unread; DROP ROLE snapring_unread")


def failing(error: Exception) -> Callable[..., Awaitable[None]]:
    """What an analysis comes to."""

    async def fails(*_: object) -> None:
        raise error

    return fails
