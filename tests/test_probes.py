"""What Kubernetes sees of a node as a process, from its start to its end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from http_doors import Asking
from nodes import WITHIN_S, blocked, captured
from test_serve import client_of, line_with, process


@asynccontextmanager
async def operator_of(running: asyncio.subprocess.Process) -> AsyncIterator[Asking]:
    """A connection to the node's HTTP door, once it listens."""
    line = await line_with(running, ["answers HTTP on"])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(line.strip().rsplit(":", 1)[1]))
    yield Asking(reader, writer)
    writer.close()


async def ready(asking: Asking) -> None:
    """Wait until the node is."""
    async with asyncio.timeout(WITHIN_S):
        while (await asking.ask("/readyz")).status != 200:
            await asyncio.sleep(0.01)


async def test_a_node_is_ready_until_it_drains_and_alive_until_it_ends(database: str, tmp_path: Path) -> None:
    """While a read waits for a lock, the node that is told to stop says so, and goes on living."""
    async with captured(database) as writer, process(tmp_path, database) as running:
        async with operator_of(running) as asking, await client_of(running) as client:
            await ready(asking)
            await client.get("user:7")
            assert b'snapring_misses_total{cache="user"} 1.0' in (await asking.ask("/metrics")).body
            async with writer.transaction():
                await writer.execute("LOCK TABLE users")
                waiting = asyncio.create_task(client.get("user:8"))
                await blocked(writer)
                running.send_signal(signal.SIGTERM)
                await line_with(running, ["drains"])
                answer = await asking.ask("/readyz")
                assert (answer.status, list(answer.said["wrong"])) == (503, ["draining"])
                assert (await asking.ask("/livez")).status == 200
            await waiting
        assert await asyncio.wait_for(running.wait(), WITHIN_S) == 0


async def test_a_node_that_has_not_found_the_others_is_alive_and_not_ready(
    database: str, tmp_path: Path
) -> None:
    """It knows no ring yet, and says what it waits for."""
    among = (
        "--peers.discovery=dns:///nodes.invalid:7946",
        "--node.name=127.0.0.1",
        "--node.secrets=0123456789abcdef",
        "--peers.discovery_wait=1h",
    )
    async with (
        captured(database),
        process(tmp_path, database, *among) as running,
        operator_of(running) as asking,
    ):
        assert (await asking.ask("/livez")).status == 200
        async with asyncio.timeout(WITHIN_S):
            while "feed" in (wrong := (await asking.ask("/readyz")).said["wrong"]):
                await asyncio.sleep(0.01)
        assert list(wrong) == ["ring"]
        assert "no view of the other nodes yet" in wrong["ring"]


async def test_a_node_without_its_database_is_alive_and_not_ready(tmp_path: Path) -> None:
    """To restart it would not bring the database back."""
    url = "postgresql://postgres@127.0.0.1:1/none"
    async with process(tmp_path, url) as running, operator_of(running) as asking:
        answer = await asking.ask("/readyz")
        assert (answer.status, list(answer.said["wrong"])) == (503, ["feed"])
        assert (await asking.ask("/livez")).status == 200


async def test_a_node_may_do_without(database: str, tmp_path: Path) -> None:
    """Then nothing listens for HTTP."""
    async with captured(database), process(tmp_path, database, "--http.port=none") as running:
        assert "RESP" in await line_with(running, ["answers HTTP on", "answers RESP on"])
