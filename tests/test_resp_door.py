"""The RESP door's life: it starts, drains with an answer for everyone, and ends."""

import asyncio
from time import monotonic

import pytest

from cluster.doors.resp import RespDoor
from doors import MemoryNode, Running, command, commands, resp_config


def test_an_idle_door_drains_at_once_and_refuses_from_then_on() -> None:
    """Idle clients are let go, and nobody can connect any more."""
    with Running() as running, running.client() as client:
        assert client.ask("PING") == b"PONG"
        running.wait(running.door.drain(monotonic() + 60))
        assert client.rest() == b""
        assert running.door.connections == 0
        with pytest.raises(ConnectionRefusedError):
            running.client()


def test_what_is_under_way_is_answered_while_it_drains() -> None:
    """A read begun before the drain gets its answer, a command sent during it a refusal."""
    with Running() as running, running.client() as client:
        running.do(lambda: running.node.rows.update({"users:1": b"one"}))
        running.hold("users:1")
        client.send(command("GET", "users:1"))
        running.until(lambda: running.node.waiting == 1)
        draining = asyncio.run_coroutine_threadsafe(running.door.drain(monotonic() + 60), running.loop)
        running.until(lambda: all(connection._outcomes.draining for connection in running.door._connections))
        client.send(commands([["GET", "users:1"], ["PING"]]))
        running.until(lambda: running.door.counts.errors == 2)
        running.release("users:1")
        assert client.rest().split(b"\r\n")[:2] == [b"$3", b"one"]
        draining.result(10)


def test_at_the_deadline_the_rest_is_told_that_the_node_stops() -> None:
    """In-flight callers get an error, not silence; so do commands that could not begin."""
    with Running(resp_config(max_pipeline=2)) as running, running.client() as client:
        running.hold("users:1")
        client.send(commands([["GET", "users:1"], ["MGET", "users:1"], ["PING"]]))
        running.until(lambda: running.node.waiting == 2)
        running.wait(running.door.drain(monotonic()))
        first, second, third, end = client.rest().split(b"\r\n")
        assert first.startswith(b"-NODE_STOPPING ")
        assert second.startswith(b"-NODE_STOPPING ")
        assert third.startswith(b"-NODE_STOPPING ")
        assert end == b""
        running.until(lambda: running.node.cancelled == ["users:1"] * 2)


def test_a_client_that_does_not_read_cannot_hold_up_the_end() -> None:
    """A drain ends soon after its deadline, whatever is still unread."""
    running = Running(resp_config(write_buffer_bytes=64 * 1024))
    running.node.keep("users:large", b"v" * 1_000_000)
    with running, running.client(receive_buffer_bytes=16 * 1024) as client:
        client.send(command("GET", "users:large") * 20)
        running.until(lambda: not all(each._work.writable for each in running.door._connections))
        running.wait(running.door.drain(monotonic()))
        assert running.door.connections == 0


async def test_a_taken_port_is_an_error_at_start() -> None:
    """Two doors cannot have one port; the second says so."""
    first = RespDoor(MemoryNode(), resp_config())
    await first.start()
    second = RespDoor(MemoryNode(), type(resp_config())(port=first.port))
    with pytest.raises(OSError, match=str(first.port)):
        await second.start()
    await first.drain(monotonic())
    assert "connections=0" in repr(first)


def test_it_counts_its_clients_and_commands() -> None:
    """The numbers that INFO shows are plain and add up."""
    with Running() as running:
        with running.client() as client, running.client() as other:
            client.ask("PING")
            other.ask("NONSENSE")
            counts = running.door.counts
            assert (counts.connections, counts.accepted) == (2, 2)
            assert (counts.commands, counts.errors) == (2, 1)
        running.until(lambda: running.door.counts.connections == 0)
