"""Writes through the RESP door: what each command answers, the order of a connection, and its own reads."""

from collections.abc import Iterator

import hiredis
import pytest

from cluster.requests import BOUNDED, STRONG, AtLeast, Bounded, Exactly
from cluster.snapshots import Snapshot
from cluster.tokens import Ticket
from cluster.writes import Refused
from doors import (
    INCARNATION,
    SNAPSHOT,
    VERSION,
    Client,
    MemoryNode,
    Running,
    command,
    commands,
    failed,
    resp_config,
)

OWN = AtLeast(Ticket(501), INCARNATION)
SEEN = Snapshot(502, 502)


@pytest.fixture
def running() -> Iterator[Running]:
    """A door before a node with one stored key, and one entry of a cache of rows in memory."""
    with Running() as door:
        door.do(lambda: door.node.rows.update({"settings:old": b"old"}))
        door.do(lambda: door.node.keep("users:hit", b"hit"))
        yield door


@pytest.fixture
def node(running: Running) -> MemoryNode:
    """The node behind the door."""
    return running.node


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """One connection."""
    with running.client() as connected:
        yield connected


@pytest.fixture
def client3(client: Client) -> Client:
    """The same, speaking RESP3."""
    client.ask("HELLO", "3")
    return client


@pytest.mark.parametrize(
    ("words", "reply", "deeds"),
    [
        ("SET settings:a v", b"OK", [("settings:a", b"v", None)]),
        ("SET acme/settings:a v", b"OK", [("acme/settings:a", b"v", None)]),
        ("set settings:a v nx", b"OK", [("settings:a", b"v", 0)]),
        ("SETNX settings:a v", 1, [("settings:a", b"v", 0)]),
        ("MSET settings:a 1 settings:b 2", b"OK", [("settings:a", b"1", None), ("settings:b", b"2", None)]),
        ("MSET settings:a 1 default/settings:a 2", b"OK", [("settings:a", b"2", None)]),
        (
            "DEL settings:old settings:none settings:old",
            1,
            [("settings:old", None, None), ("settings:none", None, None)],
        ),
        ("UNLINK settings:none", 0, [("settings:none", None, None)]),
        ("SNAP.PUT settings:a IFVERSION", VERSION, [("settings:a", b"IFVERSION", None)]),
        (
            "SNAP.PUT settings:a 1 IFVERSION 7 settings:b 2",
            VERSION,
            [("settings:a", b"1", 7), ("settings:b", b"2", None)],
        ),
        (
            "SNAP.DEL settings:a settings:b ifversion 0",
            0,
            [("settings:a", None, None), ("settings:b", None, 0)],
        ),
        (
            "SNAP.WRITE PUT settings:a DEL DEL settings:b IFVERSION 8 put settings:c PUT",
            VERSION,
            [("settings:a", b"DEL", None), ("settings:b", None, 8), ("settings:c", b"PUT", None)],
        ),
    ],
)
def test_a_write_reaches_the_node_as_one(
    node: MemoryNode, client3: Client, words: str, reply: object, deeds: list[object]
) -> None:
    """Every command is one write, with what it demands of each key; SNAP commands tell ticket and version."""
    answer = client3.ask(*words.split())
    if isinstance(answer, dict):
        assert node.position(answer[b"token"].decode()) == Ticket(501)
        answer = answer[b"version"]
    assert answer == reply
    (done,) = node.writes
    assert [(str(deed.key), deed.value, deed.if_version) for deed in done] == deeds


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("SET settings:a", "ERR wrong number of arguments for 'set' command"),
        ("SET settings:a v EX 5", "ERR SET has no option 'EX' here"),
        ("SET settings:a v NX GET", "ERR SET has no option"),
        ("SET settings:a v XX", "ERR SET has no option 'XX' here"),
        ("SET users:1 v EX 5", "READ_ONLY"),
        ("MSET settings:a 1 settings:b", "ERR wrong number of arguments for 'mset' command"),
        ("MSET settings:a 1 users:1 2", "READ_ONLY"),
        ("DEL settings:a users:1", "READ_ONLY"),
        ("INCR users:1", "READ_ONLY"),
        ("INCR settings:a", "ERR INCR is not offered: store caches have SET"),
        ("expire settings:a 5", "ERR EXPIRE is not offered"),
        ("SNAP.PUT settings:a", "ERR wrong number of arguments"),
        ("SNAP.PUT settings:a 1 settings:b", "ERR settings:b needs a value"),
        ("SNAP.PUT settings:a 1 IFVERSION", "ERR IFVERSION needs a value"),
        ("SNAP.PUT settings:a 1 IFVERSION -1", "ERR IFVERSION must be a whole number from 0"),
        ("SNAP.PUT settings:a 1 IFVERSION 18446744073709551616", "ERR IFVERSION must be"),
        ("SNAP.PUT nobody:a 1", "CACHE_UNKNOWN"),
        ("SNAP.DEL settings:a 7", "KEY_INVALID"),
        ("SNAP.WRITE settings:a 1", "ERR SNAP.WRITE expects PUT or DEL, not 'settings:a'"),
        ("SNAP.WRITE PUT settings:a 1 DEL", "ERR DEL needs a value"),
        ("SET {settings:a}@x v", "ERR this command takes a key without a token"),
        ("SNAP.KEYS settings: COUNT 0", "ERR COUNT must be a whole number from 1"),
        ("SNAP.KEYS settings: STRONG STRONG", "ERR SNAP.KEYS takes one of"),
        ("SNAP.KEYS settings: LIMIT 5", "ERR SNAP.KEYS has no option 'LIMIT'"),
    ],
)
def test_a_refusal_says_why_and_writes_nothing(
    node: MemoryNode, client: Client, words: str, error: str
) -> None:
    """Wrong words are refused before the node hears of them."""
    reply = client.ask(*words.split())
    assert isinstance(reply, hiredis.ReplyError)
    assert str(reply).startswith(error)
    assert (node.writes, node.listed) == ([], [])


def test_a_version_that_is_not_there_is_an_error_or_redis_own_no(
    running: Running, node: MemoryNode, client: Client
) -> None:
    """SNAP.PUT tells the key and its version; SET NX and SETNX answer as Redis does."""
    refusal = Refused("settings:a", version=41, seen=SNAPSHOT, incarnation=INCARNATION)
    running.do(lambda: setattr(node, "refusal", refusal))
    assert client.ask("SET", "settings:a", "v", "NX") is None
    assert client.ask("SETNX", "settings:a", "v") == 0
    reply = client.ask("SNAP.PUT", "settings:a", "v", "IFVERSION", "40")
    assert str(reply).startswith("VERSION_MISMATCH settings:a is at version 41")
    client.ask("GET", "settings:a")
    assert node.asked[-1][1] == Bounded(AtLeast(SNAPSHOT, INCARNATION)), "what it was refused for"


@pytest.mark.parametrize("code", ["WRITE_UNCERTAIN", "UNAVAILABLE", "OVERLOADED", "VALUE_INVALID"])
def test_a_failed_write_is_an_error_and_leaves_no_floor(
    running: Running, node: MemoryNode, client: Client, code: str
) -> None:
    """The reply is never OK, and later reads demand nothing."""
    running.do(lambda: setattr(node, "refusal", failed(code)))
    for words in (["SET", "settings:a", "v"], ["DEL", "settings:a"], ["SNAP.PUT", "settings:a", "v"]):
        assert str(client.ask(*words)).startswith(f"{code} ")
    client.ask("GET", "settings:a")
    assert [consistency for _, consistency, _ in node.asked] == [BOUNDED]


def test_writes_and_reads_of_a_connection_take_effect_in_its_order(
    running: Running, node: MemoryNode, client: Client
) -> None:
    """A write waits for the reads before it, and what is behind it waits for the write."""
    running.hold("settings:a", "settings:b")
    client.send(
        commands([["GET", "settings:a"], ["SET", "settings:b", "1"], ["GET", "settings:b"], ["PING"]])
        + commands([["DEL", "settings:b"], ["GET", "settings:b"]])
    )
    running.until(lambda: node.waiting == 1)
    assert (node.writes, len(node.asked)) == ([], 1)
    running.release("settings:a")
    running.until(lambda: len(node.writes) == 1)
    assert len(node.asked) == 1
    running.release("settings:b")
    assert client.replies(6) == [None, b"OK", b"1", b"PONG", 1, None]
    assert node.happened == [
        "read settings:a", "write settings:b", "read settings:b", "write settings:b", "read settings:b",
    ]  # fmt: skip


def test_one_connections_write_holds_up_no_other(running: Running, node: MemoryNode, client: Client) -> None:
    """Order is kept within a connection only."""
    running.hold("settings:a")
    client.send(commands([["SET", "settings:a", "1"], ["GET", "users:hit"]]))
    running.until(lambda: node.waiting == 1)
    with running.client() as other:
        assert other.ask("GET", "users:hit") == b"hit"
        assert other.ask("SET", "settings:b", "2") == b"OK"
    running.release("settings:a")
    assert client.replies(2) == [b"OK", None]


def test_what_is_held_behind_a_write_is_bounded() -> None:
    """The door stops reading from a client whose commands pile up behind its write."""
    with Running(resp_config(max_pipeline=4)) as door, door.client() as client:
        door.hold("settings:a")
        client.send(command("SET", "settings:a", "1"))
        door.until(lambda: door.node.waiting == 1)
        client.send(command("GET", "settings:a") * 100)
        door.until(lambda: any(not connection._reading for connection in door.door._connections))
        door.release("settings:a")
        assert client.replies(101) == [b"OK"] + [b"1"] * 100


def test_a_connection_reads_its_own_writes(running: Running, node: MemoryNode, client: Client) -> None:
    """Until the watermark sees it, plain reads of any key demand it; then the hit path is open again."""
    assert client.ask("SET", "settings:a", "1") == b"OK"
    for words in (["GET", "users:hit"], ["MGET", "users:hit"], ["SNAP.GET", "users:hit"]):
        client.ask(*words)
    assert [consistency for _, consistency, _ in node.asked] == [OWN] * 3
    assert node.tried == []
    running.do(lambda: setattr(node.timeline, "watermark", SEEN))
    hits = node.hits
    assert [client.ask("GET", "users:hit") for _ in range(3)] == [b"hit"] * 3
    assert (node.hits - hits, len(node.asked)) == (3, 3)


def test_only_the_last_write_is_the_floor(running: Running, node: MemoryNode, client: Client) -> None:
    """Whoever sees a connection's last write sees those before it."""
    client.send(commands([["SET", "settings:a", "1"], ["SET", "settings:b", "1"], ["GET", "settings:a"]]))
    assert client.replies(3) == [b"OK", b"OK", b"1"]
    ((_, consistency, _),) = node.asked
    assert consistency == AtLeast(Ticket(502), INCARNATION)


def test_another_connection_has_no_floor(node: MemoryNode, running: Running, client: Client) -> None:
    """One client's write does not slow down another's hits."""
    assert client.ask("SET", "settings:a", "1") == b"OK"
    with running.client() as other:
        assert other.ask("GET", "users:hit") == b"hit"
    assert node.asked == []


def test_a_consistency_of_its_own_is_kept(node: MemoryNode, client: Client) -> None:
    """A read that says how fresh it must be is not asked for more; a token is taken after the write."""
    client.ask("SET", "settings:a", "1")
    token = node.token(SNAPSHOT, INCARNATION)
    client.ask("SNAP.GET", "users:1", "EXACT", token)
    client.ask("SNAP.GET", "users:1", "STRONG")
    client.ask("GET", f"{{users:1}}@{token}")
    exactly, least = Exactly(SNAPSHOT, INCARNATION), AtLeast(SNAPSHOT, INCARNATION)
    assert [consistency for _, consistency, _ in node.asked] == [exactly, STRONG, least]
    taken = client.ask("SNAP.TOKEN")
    assert isinstance(taken, bytes)
    assert str(node.position(taken.decode())) == "200:200:"


def test_an_incarnation_that_has_gone_is_told_once(
    running: Running, node: MemoryNode, client: Client
) -> None:
    """The write may be lost: the next read says so, and those after it demand nothing."""
    assert client.ask("SET", "settings:a", "1") == b"OK"
    running.do(lambda: setattr(node, "polled", (SEEN, 8)))
    running.do(lambda: setattr(node.timeline, "incarnation", 8))
    assert str(client.ask("GET", "settings:a")).startswith("TOKEN_FOREIGN ")
    assert client.ask("GET", "settings:a") == b"1"
    assert [consistency for _, consistency, _ in node.asked] == [OWN, BOUNDED]


def test_a_write_in_an_incarnation_that_the_feed_has_not_met_is_no_error(
    running: Running, node: MemoryNode, client: Client
) -> None:
    """The feed is asked to look; the write was the newer of the two."""
    running.do(lambda: setattr(node.timeline, "incarnation", 6))
    running.do(lambda: setattr(node, "polled", (SNAPSHOT, INCARNATION)))
    assert client.ask("SET", "settings:a", "1") == b"OK"
    assert client.ask("GET", "settings:a") == b"1"
    assert [consistency for _, consistency, _ in node.asked] == [OWN] * 2


def test_a_client_that_leaves_during_its_write_is_noticed(
    running: Running, node: MemoryNode, client: Client
) -> None:
    """Nobody waits for the write any longer, and the connection is free at once."""
    running.hold("settings:a")
    client.send(command("SET", "settings:a", "1"))
    running.until(lambda: node.waiting == 1)
    client.socket.close()
    running.until(lambda: running.door.connections == 0)
    assert node.happened == []


def test_a_write_given_up_at_the_end_is_uncertain_and_what_is_behind_it_refused() -> None:
    """A door that stops never tells a client that a write under way did not happen."""
    running = Running()
    with running:
        client = running.client()
        running.hold("settings:a")
        client.send(commands([["SET", "settings:a", "1"], ["SET", "settings:b", "1"]]))
        running.until(lambda: running.node.waiting == 1)
    codes = [str(reply).split()[0] for reply in client.replies(2)]
    assert codes == ["WRITE_UNCERTAIN", "NODE_STOPPING"]
    assert len(running.node.writes) == 1
    client.socket.close()


def test_a_full_reply_of_a_store_cache_has_the_version(client3: Client) -> None:
    """What SNAP.PUT … IFVERSION takes."""
    reply = client3.ask("SNAP.GET", "settings:old")
    assert isinstance(reply, dict)
    assert (reply[b"value"], reply[b"version"]) == (b"old", 500)


def test_a_listing_is_a_page_with_its_snapshot(node: MemoryNode, client3: Client) -> None:
    """Keys and versions, and the token with which the next page is asked for."""
    token = node.token(SNAPSHOT, INCARNATION)
    page = client3.ask("SNAP.KEYS", "default/settings:", "COUNT", "2")
    assert page == {
        b"keys": [[b"settings:a", 41], [b"settings:b", 42]],
        b"as_of": token.encode(),
        b"age_ms": -1,
    }
    client3.ask("SNAP.KEYS", "settings:", "after", "settings:b", "EXACT", token)
    client3.ask("SNAP.KEYS", "settings:a", "STRONG")
    assert node.listed == [
        ("settings:", "", 2, BOUNDED),
        ("settings:", "settings:b", 100, Exactly(SNAPSHOT, INCARNATION)),
        ("settings:a", "", 100, STRONG),
    ]


def test_a_page_too_large_to_send_is_refused() -> None:
    """``write_buffer`` bounds it, as it does MGET."""
    with Running(resp_config(write_buffer_bytes=16)) as running, running.client() as client:
        assert "ask for a smaller COUNT" in str(client.ask("SNAP.KEYS", "settings:"))
