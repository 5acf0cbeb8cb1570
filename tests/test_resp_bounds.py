"""One misbehaving client harms only itself: every bound of the RESP door, each on real sockets."""

import random
import socket
from typing import Any

import pytest

from doors import Client, Running, command, commands, resp_config

KIB = 1024
VALUE = b"v" * (64 * KIB)


def door(**settings: Any) -> Running:
    """A door with these settings, its node holding one large value."""
    running = Running(resp_config(**settings))
    running.node.keep("users:large", VALUE)
    running.node.rows = {"users:1": b"one", "users:large2": VALUE}
    return running


@pytest.mark.parametrize(
    "malformed",
    [
        b"*1000000000\r\n",
        b"*1\r\n$1000000000\r\n",
        b"*1\r\n*1\r\n$1\r\na\r\n",
        b"*1\r\n$-5\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"*3\r\n" * 100_000,
        b"\xff" * (8 * KIB * KIB),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_malformed_input_ends_its_connection_with_an_error(malformed: bytes) -> None:
    """The client can read what was wrong, although it still sends; another client notices nothing."""
    with door() as running, running.client() as client, running.client() as other:
        client.send(command("PING"))
        assert client.reply() == b"PONG"
        with_rest = _send_all(client, malformed)
        assert with_rest.startswith(b"-ERR Protocol error: ")
        assert with_rest.endswith(b"\r\n")
        assert other.ask("PING") == b"PONG"
        assert running.door.counts.protocol_errors == 1
        running.until(lambda: running.door.connections == 1)


def _send_all(client: Client, data: bytes) -> bytes:
    """Send without reading, as far as the door lets us; then what it says."""
    try:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
    except (ConnectionError, TimeoutError):
        pass
    return client.rest()


def test_random_bytes_never_stop_the_door() -> None:
    """After hundreds of connections of rubbish the door answers as ever, and has forgotten them."""
    rubbish = random.Random(7)
    pieces = [b"*", b"$", b"\r\n", b"1", b"GET", b"users:1", b":", b"~", b"9999999", b"\x00"]
    with door() as running:
        for _ in range(200):
            with running.client() as client:
                size = rubbish.randrange(40)
                client.send(b"".join(rubbish.choice([*pieces, rubbish.randbytes(3)]) for _ in range(size)))
        with running.client() as client:
            assert client.ask("GET", "users:1") == b"one"
        running.until(lambda: running.door.connections == 0)


def test_a_request_over_max_request_is_refused_when_announced() -> None:
    """The door does not wait for the bytes of a request that it will not take."""
    with door(max_request_bytes=4 * KIB) as running:
        with running.client() as client:
            assert client.ask("ECHO", b"x" * 4000) == b"x" * 4000
        with running.client() as client:
            client.send(b"*2\r\n$4\r\nECHO\r\n$4096\r\n")
            assert b"larger than 4096 bytes" in client.rest()


def test_a_command_of_too_many_words_is_refused() -> None:
    """``max_args`` counts the command's name."""
    with door(max_args=8) as running:
        with running.client() as client:
            assert client.ask("EXISTS", *["users:1"] * 7) == 0
        with running.client() as client:
            client.send(command("EXISTS", *["users:1"] * 8))
            assert b"expected 0 to 8 words" in client.rest()


def test_a_pipeline_has_at_most_max_pipeline_commands_in_work() -> None:
    """Further commands wait unread, and all are answered in the end."""
    keys = [f"users:{number}" for number in range(50)]
    with door(max_pipeline=10) as running, running.client() as client:
        running.hold(*keys)
        client.send(commands(["GET", key] for key in keys))
        running.until(lambda: running.node.waiting == 10)
        with running.client() as other:
            assert other.ask("PING") == b"PONG"
        assert len(running.do(lambda: list(running.node.asked))) == 10
        running.release(*keys)
        assert client.replies(50) == [None, b"one"] + [None] * 48


def test_more_than_max_connections_are_refused_with_an_error() -> None:
    """The refused client is told why; a place that becomes free is given again."""
    with door(max_connections=2) as running:
        first, second = running.client(), running.client()
        assert first.ask("PING") == second.ask("PING") == b"PONG"
        with running.client() as third:
            assert third.rest() == b"-ERR max number of clients reached\r\n"
        assert running.door.counts.refused == 1
        first.socket.close()
        running.until(lambda: running.door.connections == 1)
        with running.client() as fourth:
            assert fourth.ask("PING") == b"PONG"
        second.socket.close()


@pytest.mark.parametrize("key", ["users:large", "users:large2"])
def test_a_client_that_does_not_read_is_not_executed_further(key: str) -> None:
    """What is kept for a slow reader stays near ``write_buffer``; once it reads, it gets everything."""
    count = 400
    with (
        door(write_buffer_bytes=256 * KIB, max_pipeline=16) as running,
        running.client(receive_buffer_bytes=16 * KIB) as client,
    ):
        client.send(command("GET", key) * count)
        running.until(lambda: _stalled(running))
        assert _kept_bytes(running) < 2048 * KIB
        with running.client() as other:
            assert other.ask("PING") == b"PONG"
        assert client.replies(count) == [VALUE] * count


def test_a_client_that_lets_replies_pile_up_is_disconnected() -> None:
    """Reads under way that come back to a client that reads nothing end its connection at the hard bound."""
    keys = [f"users:{number}" for number in range(300)]
    with (
        door(write_buffer_bytes=256 * KIB) as running,
        running.client(receive_buffer_bytes=16 * KIB) as client,
    ):
        running.do(lambda: running.node.rows.update(dict.fromkeys(keys, VALUE)))
        running.hold(*keys)
        client.send(commands(["GET", key] for key in keys))
        running.until(lambda: running.node.waiting == len(keys))
        running.release(*keys)
        running.until(lambda: running.door.counts.slow_readers == 1)
        running.until(lambda: running.door.connections == 0)
        with running.client() as other:
            assert other.ask("PING") == b"PONG"


def test_a_reply_larger_than_the_write_buffer_needs_fewer_keys() -> None:
    """MGET refuses to build what would exceed ``write_buffer``; a single value always goes."""
    with door(write_buffer_bytes=32 * KIB) as running, running.client() as client:
        assert client.ask("GET", "users:large") == VALUE
        assert "ask for fewer keys" in str(client.ask("MGET", "users:large"))
        assert "ask for fewer keys" in str(client.ask("MGET", "users:large2"))


def test_an_idle_client_is_disconnected_and_a_waiting_one_is_not() -> None:
    """Idle is who neither sends nor reads nor waits for a reply."""
    with door(idle_timeout_s=0.2) as running, running.client() as idle, running.client() as waiting:
        running.hold("users:1")
        waiting.send(command("GET", "users:1"))
        running.until(lambda: running.node.waiting == 1)
        assert idle.closed()
        assert running.door.counts.idle_closed == 1
        running.release("users:1")
        assert waiting.reply() == b"one"


def test_a_client_that_stops_reading_for_good_is_disconnected() -> None:
    """Replies that nobody reads do not keep a connection alive."""
    with (
        door(idle_timeout_s=0.3, write_buffer_bytes=64 * KIB) as running,
        running.client(receive_buffer_bytes=16 * KIB) as client,
    ):
        client.send(command("GET", "users:large") * 400)
        running.until(lambda: running.door.counts.idle_closed == 1)
        running.until(lambda: running.door.connections == 0)


def _stalled(running: Running) -> bool:
    return any(not each._work.writable and not each._work.wants_more for each in running.door._connections)


def _kept_bytes(running: Running) -> int:
    (connection,) = running.door._connections
    return running.do(
        lambda: connection._work._replies.size_bytes + connection._transport.get_write_buffer_size()
    )
