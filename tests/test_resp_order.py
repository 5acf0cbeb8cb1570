"""Commands that wait: replies in order, loads side by side, nobody waits for a client that has gone."""

import socket
from collections.abc import Iterator

import hiredis
import pytest

from doors import Client, Running, command, commands, failed


@pytest.fixture
def running() -> Iterator[Running]:
    """A door before a node that can load three rows, none of them in memory."""
    with Running() as door:
        door.do(lambda: door.node.rows.update({"users:1": b"one", "users:2": b"two", "users:3": b"three"}))
        door.do(lambda: door.node.keep("users:hit", b"hit"))
        yield door


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """One connection."""
    with running.client() as connected:
        yield connected


def test_replies_keep_the_order_of_the_commands(running: Running, client: Client) -> None:
    """What is ready early waits for what was asked earlier."""
    running.hold("users:1", "users:2")
    client.send(commands([["GET", "users:1"], ["GET", "users:hit"], ["GET", "users:2"], ["PING"]]))
    running.until(lambda: running.node.waiting == 2)
    running.release("users:2")
    running.until(lambda: running.node.waiting == 1)
    running.release("users:1")
    assert client.replies(4) == [b"one", b"hit", b"two", b"PONG"]


def test_a_hit_behind_a_miss_is_executed_at_once(running: Running, client: Client) -> None:
    """Commands behind a pending one run; only their replies queue."""
    running.hold("users:1")
    client.send(commands([["GET", "users:1"], ["GET", "users:hit"]]))
    running.until(lambda: running.node.hits == 1)
    client.send(command("GET", "users:hit"))
    running.until(lambda: running.node.hits == 2)
    running.release("users:1")
    assert client.replies(3) == [b"one", b"hit", b"hit"]


def test_misses_of_one_connection_load_side_by_side(running: Running, client: Client) -> None:
    """All of a pipeline's misses are under way before the first is answered; so are MGET's."""
    running.hold("users:1", "users:2", "users:3")
    client.send(commands([["GET", "users:1"], ["MGET", "users:2", "users:hit", "users:3"]]))
    running.until(lambda: running.node.waiting == 3)
    running.release("users:3", "users:2", "users:1")
    assert client.replies(2) == [b"one", [b"two", b"hit", b"three"]]


def test_one_clients_miss_holds_up_no_other(running: Running, client: Client) -> None:
    """Another connection is answered meanwhile."""
    running.hold("users:1")
    client.send(command("GET", "users:1"))
    running.until(lambda: running.node.waiting == 1)
    with running.client() as other:
        assert other.ask("GET", "users:2") == b"two"
    running.release("users:1")
    assert client.reply() == b"one"


def test_a_pending_reply_is_in_the_protocol_of_its_command(running: Running, client: Client) -> None:
    """HELLO 3 behind a pending GET does not change how that GET's null is written."""
    running.hold("users:none")
    client.send(commands([["GET", "users:none"], ["HELLO", "3"], ["GET", "users:none"], ["QUIT"]]))
    running.until(lambda: running.node.waiting == 2)
    running.release("users:none")
    replies = client.rest()
    assert replies.startswith(b"$-1\r\n%8\r\n")
    assert replies.endswith(b"_\r\n+OK\r\n")


def test_a_failed_key_fails_its_mget_and_frees_the_others(running: Running, client: Client) -> None:
    """MGET answers with the error, and the loads that nobody waits for any longer are cancelled."""
    running.hold("users:2")
    running.do(lambda: running.node.rows.update({"users:1": failed("UNAVAILABLE")}))
    reply = client.ask("MGET", "users:2", "users:1")
    assert isinstance(reply, hiredis.ReplyError)
    assert str(reply).startswith("UNAVAILABLE")
    running.until(lambda: running.node.cancelled == ["users:2"])


def test_a_client_that_leaves_takes_its_reads_along(running: Running, client: Client) -> None:
    """Reads of a closed connection are cancelled, MGET's among them."""
    running.hold("users:1", "users:2", "users:3")
    client.send(commands([["GET", "users:1"], ["MGET", "users:2", "users:3"]]))
    running.until(lambda: running.node.waiting == 3)
    client.socket.close()
    running.until(lambda: sorted(running.node.cancelled) == ["users:1", "users:2", "users:3"])
    running.until(lambda: running.door.connections == 0)


def test_a_client_that_stops_sending_has_gone(running: Running, client: Client) -> None:
    """The end of its bytes is the end of the client; what it had been answered before arrives."""
    running.hold("users:1")
    client.send(commands([["PING"], ["GET", "users:1"], ["PING"]]))
    running.until(lambda: running.node.waiting == 1)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.rest() == b"+PONG\r\n"
    running.until(lambda: running.node.cancelled == ["users:1"])


def test_quit_answers_everything_before_it_then_closes(running: Running, client: Client) -> None:
    """QUIT is the last command that counts."""
    running.hold("users:1")
    client.send(commands([["GET", "users:1"], ["QUIT"], ["PING"]]))
    running.until(lambda: running.node.waiting == 1)
    running.release("users:1")
    assert client.rest() == b"$3\r\none\r\n+OK\r\n"


@pytest.mark.parametrize("tail", [b"*x\r\n", b"*1\r\n$x\r\n"])
def test_nothing_is_said_of_what_follows_a_quit(client: Client, tail: bytes) -> None:
    """Not even that it breaks the protocol: the last reply is QUIT's."""
    client.send(command("QUIT") + tail)
    assert client.rest() == b"+OK\r\n"
