"""CLIENT TRACKING on the wire: what is pushed, to whom, and behind which reply."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hiredis import PushNotification

from cluster.access.guard import Guard
from cluster.config import AccessConfig
from doors import Client, MemoryNode, Running, command, commands, resp_config
from keys import holder, write_keys

EVERYTHING = [b"invalidate", None]


@pytest.fixture
def running() -> Iterator[Running]:
    """A door before a node with two values, and rows to load: one that stays in memory, one that does not."""
    with Running(resp_config(tracking_keys=3)) as door:
        for key in ("users:1", "users:2"):
            door.do(lambda key=key: door.node.keep(key, key.encode()))  # type: ignore[misc]
        door.do(lambda: door.node.rows.update({"users:8": b"stays", "users:9": b"goes"}))
        door.node.kept.add("users:8")
        yield door


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """A client that is tracked."""
    with tracked(running) as client:
        yield client


def tracked(running: Running) -> Client:
    """A new one."""
    client = running.client()
    client.ask("HELLO", "3")
    assert client.ask("CLIENT", "TRACKING", "ON") == b"OK"
    return client


def let_go(*keys: str) -> list[object]:
    """The push that names ``keys``."""
    return [b"invalidate", [key.encode() for key in keys]]


def leaves(running: Running, *keys: str) -> None:
    """The entries under ``keys`` leave memory."""

    def leave() -> None:
        for key in keys:
            running.node.store.index.pop(key.encode(), None)
            running.node.watching.left(key.encode())

    running.do(leave)


def test_a_key_that_was_read_is_named_when_it_leaves(running: Running, client: Client) -> None:
    """Once, whatever the command, and by a push."""
    assert client.ask("GET", "users:1") == b"users:1"
    assert client.ask("MGET", "users:1", "users:2") == [b"users:1", b"users:2"]
    leaves(running, "users:1")
    push = client.reply()
    assert isinstance(push, PushNotification)
    assert push == let_go("users:1")
    leaves(running, "users:1")
    assert client.ask("PING") == b"PONG"


def test_a_key_is_named_as_it_was_asked_for(running: Running, client: Client) -> None:
    """Each way of writing it: the client knows its values by them."""
    assert client.ask("MGET", "default/users:1", "users:%31", "users:1") == [b"users:1"] * 3
    leaves(running, "users:1")
    assert client.reply() == let_go("default/users:1", "users:%31", "users:1")


def test_nobody_hears_of_what_he_did_not_read(running: Running, client: Client) -> None:
    """Each client of its own keys."""
    with tracked(running) as other:
        client.ask("GET", "users:1")
        other.ask("GET", "users:2")
        leaves(running, "users:1", "users:2")
        assert client.reply() == let_go("users:1")
        assert other.reply() == let_go("users:2")


def test_a_row_that_is_loaded_into_memory_may_be_kept(running: Running, client: Client) -> None:
    """Nothing is pushed before it leaves."""
    assert client.ask("GET", "users:8") == b"stays"
    assert client.ask("PING") == b"PONG"
    leaves(running, "users:8")
    assert client.reply() == let_go("users:8")


@pytest.mark.parametrize("words", [("GET", "users:9"), ("MGET", "users:9", "users:1"), ("EXISTS", "users:9")])
def test_what_is_not_held_is_let_go_of_behind_its_reply(client: Client, words: tuple[str, ...]) -> None:
    """The node would not hear of its change."""
    assert not isinstance(client.ask(*words), PushNotification)
    assert client.reply() == let_go("users:9")
    assert client.ask("PING") == b"PONG"


def test_a_key_with_a_token_is_let_go_of(client: Client) -> None:
    """There are as many of them as there are tokens: none is noted."""
    token = client.ask("SNAP.TOKEN")
    text = f"{{users:1}}@{token.decode()}"  # type: ignore[attr-defined]
    assert client.ask("GET", text) == b"users:1"
    assert client.reply() == let_go(text)


def test_what_another_incarnation_answered_is_let_go_of(running: Running, client: Client) -> None:
    """The node has not followed it yet, or no longer: what is in memory is of another."""
    running.do(lambda: setattr(running.node.timeline, "incarnation", 8))
    assert client.ask("GET", "users:8") == b"stays"
    assert client.reply() == let_go("users:8")


def test_replies_that_name_their_snapshot_are_not_noted(running: Running, client: Client) -> None:
    """They are not to be kept."""
    client.ask("SNAP.GET", "users:1")
    client.ask("SNAP.MGET", "users:1", "users:9")
    assert client.ask("PING") == b"PONG"
    assert running.do(lambda: running.door.counts.tracked_keys) == 0


def test_more_texts_of_one_key_than_are_noted_are_let_go_of() -> None:
    """A key can be written in many ways, of which eight are noted."""
    texts = [f"users:{head}{tail}" for head in ("12", "%312", "1%32") for tail in ("34", "%334", "3%34")]
    with Running() as running, tracked(running) as client:
        running.do(lambda: running.node.keep("users:1234", b"x"))
        assert client.ask("MGET", *texts[:8]) == [b"x"] * 8
        assert client.ask("PING") == b"PONG"
        assert client.ask("GET", texts[8]) == b"x"
        assert client.reply() == let_go(*texts)
        assert running.do(lambda: running.door.counts.tracked_keys) == 0


def test_more_to_let_go_of_than_is_kept_is_everything(client: Client) -> None:
    """What is due to a client is bounded, too."""
    assert client.ask("EXISTS", "users:9", "users:91", "users:92", "users:93") == 0
    assert client.reply() == EVERYTHING


def test_the_end_of_an_entry_is_told_again_behind_a_reply_that_waits(
    running: Running, client: Client
) -> None:
    """A client that keeps the reply it reads must hear of the end after it, and need not wait to hear of it."""
    running.hold("users:9")
    client.send(commands([("GET", "users:9"), ("GET", "users:1")]))
    running.until(lambda: running.node.waiting == 1)
    leaves(running, "users:1")
    assert client.reply() == let_go("users:1")
    running.release("users:9")
    rest = client.replies(4)
    assert rest.index(b"users:1") < rest.index(let_go("users:1"))


def test_the_oldest_key_goes_for_one_too_many(running: Running, client: Client) -> None:
    """`tracking_keys` of them are noted."""
    for number in range(10, 14):
        running.do(lambda number=number: running.node.keep(f"users:{number}", b"x"))  # type: ignore[misc]
    for number in (10, 11, 12, 10, 13):
        assert client.ask("GET", f"users:{number}") == b"x"
    assert client.reply() == let_go("users:11")
    assert running.do(lambda: running.door.counts.tracked_keys) == 3


def test_all_clients_together_are_bounded() -> None:
    """Who keeps one more than `tracking_total` lets go of one."""
    with Running(resp_config(tracking_total=2)) as running:
        for number in (1, 2, 3):
            running.do(lambda number=number: running.node.keep(f"users:{number}", b"x"))  # type: ignore[misc]
        with tracked(running) as one, tracked(running) as other:
            one.ask("GET", "users:1")
            one.ask("GET", "users:2")
            assert other.ask("GET", "users:3") == b"x"
            assert other.reply() == let_go("users:3")


def test_a_gap_has_everything_let_go_of(running: Running, client: Client) -> None:
    """Memory was cleared, as for a new incarnation; whoever keeps nothing is not told."""
    with tracked(running) as other:
        client.ask("GET", "users:1")
        running.do(running.node.watching.cleared)
        assert client.reply() == EVERYTHING
        assert other.ask("PING") == b"PONG"


def test_a_snapshot_that_has_become_too_old_has_everything_let_go_of(
    running: Running, client: Client
) -> None:
    """What the node itself would not answer from memory, its clients must not either."""
    client.ask("GET", "users:1")
    running.do(lambda: setattr(running.node, "fresh_until_s", 0.0))
    assert client.reply() == EVERYTHING
    assert client.ask("GET", "users:1") == b"users:1"
    assert client.reply() == let_go("users:1")


def test_a_node_that_stops_has_everything_let_go_of(running: Running, client: Client) -> None:
    """Nobody will tell of what leaves it from then on."""
    client.ask("GET", "users:1")
    running.do(running.node.watching.stop)
    assert client.reply() == EVERYTHING
    assert client.ask("GET", "users:1") == b"users:1"
    assert client.reply() == let_go("users:1")


def test_a_write_of_ones_own_is_told_of_before_its_reply(client: Client) -> None:
    """Whoever has read the reply finds nothing older in his cache."""
    client.send(command("SET", "settings:a", "1"))
    assert client.reply() == let_go("settings:a")
    assert client.reply() == b"OK"


@pytest.mark.parametrize("words", [("CLIENT", "TRACKING", "OFF"), ("RESET",), ("HELLO", "2")])
def test_tracking_ends(running: Running, client: Client, words: tuple[str, ...]) -> None:
    """Nothing is pushed any more, nothing noted, and hits take the short way again."""
    client.ask("GET", "users:1")
    client.ask(*words)
    leaves(running, "users:1")
    client.ask("GET", "users:2")
    assert client.ask("CLIENT", "GETREDIR") == -1
    counts = running.do(lambda: running.door.counts)
    assert (counts.tracking, counts.tracked_keys, counts.invalidations) == (0, 0, 0)


def test_a_client_that_goes_leaves_nothing_behind(running: Running) -> None:
    """Its keys are forgotten, and the hub has no subscriber."""
    with tracked(running) as client:
        client.ask("GET", "users:1")
        assert running.do(lambda: running.node.watching.subscriptions) == 1
    running.until(lambda: not running.node.watching.subscriptions)
    assert running.do(lambda: running.door.counts.tracked_keys) == 0


def test_a_client_that_does_not_read_hears_when_it_does(running: Running) -> None:
    """Nothing piles up for it meanwhile; what left is named behind the replies."""
    with running.client(receive_buffer_bytes=4096) as client:
        client.ask("HELLO", "3")
        client.ask("CLIENT", "TRACKING", "ON")
        running.do(lambda: running.node.keep("users:1", b"x" * 8_000_000))
        client.send(command("GET", "users:1"))
        running.until(lambda: running.door.counts.tracked_keys == 1)
        leaves(running, "users:1")
        running.until(lambda: running.door.counts.tracked_keys == 0)
        assert running.do(lambda: running.door.counts.invalidations) == 0
        assert client.reply() == b"x" * 8_000_000
        assert client.reply() == let_go("users:1")


@pytest.mark.parametrize(
    "words",
    [
        ("ON", "BCAST"),
        ("ON", "PREFIX", "a"),
        ("ON", "REDIRECT", "1"),
        ("ON", "OPTIN"),
        ("ON", "NOLOOP"),
        (),
        ("X",),
    ],
)
def test_options_that_are_not_there_are_refused(running: Running, words: tuple[str, ...]) -> None:
    """With what to do instead; nothing is tracked."""
    with running.client() as client:
        client.ask("HELLO", "3")
        assert "CLIENT TRACKING" in str(client.ask("CLIENT", "TRACKING", *words))
        assert client.ask("CLIENT", "GETREDIR") == -1


def test_tracking_takes_the_newer_protocol(running: Running) -> None:
    """RESP2 has no pushes."""
    with running.client() as client:
        assert "HELLO 3" in str(client.ask("CLIENT", "TRACKING", "ON"))
        assert "OPTIN" in str(client.ask("CLIENT", "CACHING", "YES"))


def test_a_tracked_client_is_told_so(client: Client) -> None:
    """CLIENT TRACKINGINFO and GETREDIR."""
    info = client.ask("CLIENT", "TRACKINGINFO")
    assert isinstance(info, dict)
    assert (info[b"flags"], info[b"redirect"], info[b"prefixes"]) == ([b"on"], 0, [])
    assert client.ask("CLIENT", "GETREDIR") == 0


def test_a_tenants_keys_are_named_as_it_may_have_written_them(tmp_path: Path) -> None:
    """With its name and without; and nobody hears of another tenant's."""
    acme, zeta = holder("one", "acme", "write"), holder("two", "zeta")
    node = MemoryNode()
    access = AccessConfig(keys_file=str(write_keys(tmp_path / "keys", (acme, zeta))), reload_period_s=3600.0)
    for tenant in ("acme", "zeta"):
        node.keep(f"{tenant}/users:1", tenant.encode())
    with Running(node=node, guard=Guard(replace(node.config, access=access))) as running:
        clients = [running.client(), running.client()]
        for client, who in zip(clients, (acme, zeta), strict=True):
            client.ask("HELLO", "3", "AUTH", "default", who.key)
            client.ask("CLIENT", "TRACKING", "ON")
            assert client.ask("GET", "users:1") == who.tenant.encode()
        leaves(running, "acme/users:1")
        assert clients[0].reply() == let_go("users:1", "acme/users:1")
        clients[0].send(command("SET", "settings:a", "1"))
        assert clients[0].reply() == let_go("settings:a", "acme/settings:a")
        assert clients[1].ask("PING") == b"PONG"
        for client in clients:
            client.socket.close()
