"""``snapring watch`` at our own gRPC doors: what it says when connections are lost and nodes come again."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import psycopg
import pytest
import trustme

from certificates import issue
from cluster.commands.watching import Back, Lost, Sought, Told, Watch
from cluster.config import GrpcConfig
from cluster.doors.grpc import GrpcDoor
from cluster.node import Node
from cluster.readiness import Readiness
from grpc_doors import QUICK, eventually, in_memory
from keys import holder, write_keys
from nodes import WITHIN_S, captured, config, read, running
from scripts.proof.ports import free_port
from snapring import AsyncClient, Tls
from snapring.credentials import Credentials
from snapring.errors import ConnectionFailed, NodeStopping
from test_cli_asking import Program, person, program
from test_serve import line_with, process

__all__ = ["person", "program"]

SNAPRING = Path(sys.executable).parent / "snapring"


class Doors:
    """The gRPC door of a node, on one port, as often as it is opened."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.port = free_port()
        self.at = f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While it is."""
        door = GrpcDoor(self.node, self.node, self.node.watching, GrpcConfig(port=self.port), Readiness({}))
        await door.start()
        try:
            yield
        finally:
            await door.drain(monotonic())
            self.node.watching._stopping = False  # the door ends here, the node does not


async def renamed(database: str, number: int) -> None:
    """What ends ``user:NUMBER``."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
        await writer.execute("UPDATE users SET name = name || '!' WHERE id = %s", (number,))


async def test_a_watch_goes_on_from_where_it_was(program: Program, database: str, person: None) -> None:
    """What went while its connection was lost is named; standard error tells what became of it."""
    async with captured(database), running(config(database, watch=QUICK)) as node:
        doors = Doors(node)
        words = ("watch", "user:", "--grpc", doors.at, "--count", "2", "--for", "1m")
        async with doors.open():
            watching = asyncio.create_task(program(*words))
            await eventually(lambda: node.watching.subscriptions)
            await gone(node, database, 1)
        await gone(node, database, 2)
        async with doors.open():
            code, out, err = await watching
    assert (code, [line.split()[1:] for line in out.splitlines()]) == (0, [["user:1"], ["user:2"]])
    assert f"going on from there as soon as {doors.at} answers again" in err
    assert err.splitlines()[-1].endswith("s: nothing was missed")


async def gone(node: Node, database: str, number: int) -> None:
    """Have ``user:NUMBER`` in memory, and out of it."""
    await read(node, f"user:{number}")
    await renamed(database, number)
    entry = node.store.index[b"user:%d" % number]
    await eventually(lambda: entry.end is not None)


async def test_a_guarded_node_that_restarts_is_watched_again(database: str, tmp_path: Path) -> None:
    """As processes, with a key and through TLS; whoever keeps values is told to let go of all of them."""
    authority, reader = trustme.CA(), holder("app", "default")
    files = issue(authority, tmp_path / "tls", "localhost", "127.0.0.1")
    keys = write_keys(tmp_path / "keys", [reader])
    (tmp_path / "key").write_text(reader.key)
    port = free_port()
    settings = (
        f"--access.keys_file={keys}",
        f"--grpc.port={port}",
        f"--tls.cert_file={files.cert}",
        f"--tls.key_file={files.key}",
    )
    words = ("--grpc", f"localhost:{port}", "--ca-file", files.ca, "--key-file", tmp_path / "key")

    async def read_and_rename(node: asyncio.subprocess.Process, number: int) -> None:
        resp = int((await line_with(node, ["answers RESP on"])).strip().rsplit(":", 1)[1])
        tls = Tls(ca_file=files.ca)
        async with AsyncClient(f"localhost:{resp}", api_key=reader.key, tls=tls, routed=False) as client:
            await client.get(f"user:{number}")
        await renamed(database, number)

    async with captured(database), process(tmp_path, database, *settings) as node:
        await line_with(node, ["answers gRPC on"])
        watching = await asyncio.create_subprocess_exec(
            *(SNAPRING, "watch", *words, "--count", "2", "--for", "1m"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert (await event(watching))["keys"] == []
            await read_and_rename(node, 1)
            assert (await event(watching))["keys"] == ["user:1"]
            node.send_signal(signal.SIGTERM)
            await asyncio.wait_for(node.wait(), WITHIN_S)
            async with process(tmp_path, database, *settings) as again:
                await line_with(again, ["answers gRPC on"])
                assert (await event(watching))["skipped"]
                await read_and_rename(again, 2)
                assert (await event(watching))["keys"] == ["user:2"]
            _, err = await asyncio.wait_for(watching.communicate(), WITHIN_S)
        finally:
            if watching.returncode is None:
                watching.kill()
                await watching.wait()
    assert watching.returncode == 0
    assert "NODE_STOPPING: the node is stopping" in err.decode()
    assert err.decode().count("answers again after") == 1
    assert err.decode().splitlines()[-1].endswith("s: what happened meanwhile is not known")


async def event(watching: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next event that a program prints."""
    assert watching.stdout is not None
    found: dict[str, Any] = json.loads(await asyncio.wait_for(watching.stdout.readline(), WITHIN_S))
    return found


async def test_several_nodes_are_watched_at_once(program: Program, person: None) -> None:
    """Each line says whose; who is named twice is watched once."""
    async with in_memory() as (one, here), in_memory() as (other, there):
        at, again = (f"127.0.0.1:{calling.door.port}" for calling in (here, there))
        words = ("--grpc", at, "--grpc", again, "--grpc", at, "--count", "2", "--for", "1m")
        watching = asyncio.create_task(program("watch", *words))
        await eventually(lambda: one.watching.subscriptions and other.watching.subscriptions)
        assert one.watching.subscriptions == 1
        one.watching.left(b"users:1")
        other.watching.left(b"users:2")
        code, out, _ = await watching
    assert code == 0
    assert {tuple(line.split()[1:]) for line in out.splitlines()} == {(at, "users:1"), (again, "users:2")}


async def test_one_of_several_that_does_not_answer_is_an_error(program: Program) -> None:
    """Code 3: nobody is to think that he hears of all of them."""
    async with in_memory() as (_, here):
        words = ("--grpc", f"127.0.0.1:{here.door.port}", "--grpc", "127.0.0.1:1", "--for", "1m")
        code, _, err = await program("watch", *words)
    assert (code, "127.0.0.1:1: failed to connect" in err) == (3, True)


async def test_who_comes_back_in_time_no_more_is_given_up(program: Program) -> None:
    """After ``--reconnect``, with code 3; and after ``--for`` as if nothing had been."""
    for words, code in ((("--reconnect", "1ms"), 3), (("--for", "300ms"), 0)):
        async with in_memory() as (node, here):
            door = f"127.0.0.1:{here.door.port}"
            watching = asyncio.create_task(program("watch", "--grpc", door, *words))
            await eventually(lambda: node.watching.subscriptions)
        found, _, err = await watching
        assert (found, "as soon as" in err) == (code, True)


def patient(door: str, clock: Callable[[], float] = monotonic) -> Watch:
    """A watch without end."""
    sought = Sought(prefixes=(), until_s=None, within_s=1.0, patience_s=60.0)
    return Watch(door, Credentials(), sought, clock=clock, random=Random(1))


async def test_a_refusal_that_may_pass_is_waited_out() -> None:
    """The stream's own error, and how long it was away."""
    async with in_memory() as (node, here):
        watch = patient(f"127.0.0.1:{here.door.port}")
        news = watch.news()
        assert isinstance(await asyncio.to_thread(next, news), Told)
        stopping = node.watching
        node.watching.stop()
        lost = await asyncio.to_thread(_until, news, Lost)
        assert isinstance(lost.error, NodeStopping)
        stopping._stopping = False
        back = await asyncio.to_thread(_until, news, Back)
        assert (back.missed, back.away_s > 0) == (False, True)
        watch.stop()
        assert await asyncio.to_thread(list, news) is not None


def _until(news: Any, kind: type) -> Any:
    return next(each for each in news if isinstance(each, kind))


def test_a_door_that_never_answered_is_not_sought() -> None:
    """A wrong address is told at once."""
    with pytest.raises(ConnectionFailed, match="Connection refused"):
        list(patient("127.0.0.1:1").news())
