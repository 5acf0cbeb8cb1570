"""What each command of the RESP door answers, byte for byte in RESP2 and as seen in RESP3."""

from collections.abc import Iterator
from math import inf
from time import monotonic

import hiredis
import pytest

from cluster.requests import BOUNDED, STRONG, AtLeast, Exactly
from cluster.tokens import Ticket
from doors import INCARNATION, SNAPSHOT, Client, MemoryNode, Running, command, failed
from snapring.errors import SnapringError
from snapring.keys import slot_of

CODES = sorted({kind.code for kind in SnapringError.__subclasses__()})


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One door for all tests of this module."""
    with Running() as door:
        yield door


@pytest.fixture
def node(running: Running) -> MemoryNode:
    """The node behind the door, with a few entries and nothing asked."""

    def refill() -> None:
        running.node.store.index.clear()
        running.node.rows = {"users:row": b"loaded"}
        running.node.asked.clear()
        running.node.tried.clear()
        running.node.fresh_until_s = inf
        running.node.keep("users:hit", b"value")
        running.node.keep("users:null", None)

    running.do(refill)
    return running.node


@pytest.fixture
def client(running: Running, node: MemoryNode) -> Iterator[Client]:
    """A connection of its own."""
    with running.client() as connected:
        yield connected


@pytest.fixture
def client3(client: Client) -> Client:
    """The same, speaking RESP3."""
    client.ask("HELLO", "3")
    return client


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (["PING"], b"+PONG\r\n"),
        (["ping", "hey"], b"$3\r\nhey\r\n"),
        (["ECHO", b"\x00\r\n"], b"$3\r\n\x00\r\n\r\n"),
        (["GET", "users:hit"], b"$5\r\nvalue\r\n"),
        (["get", "users:hit"], b"$5\r\nvalue\r\n"),
        (["gEt", "users:hit"], b"$5\r\nvalue\r\n"),
        (["GET", "default/users:hit"], b"$5\r\nvalue\r\n"),
        (["GET", "users:null"], b"$-1\r\n"),
        (["GET", "users:row"], b"$6\r\nloaded\r\n"),
        (["GET", "users:none"], b"$-1\r\n"),
        (
            ["MGET", "users:row", "users:hit", "users:null", "users:row"],
            b"*4\r\n$6\r\nloaded\r\n$5\r\nvalue\r\n$-1\r\n$6\r\nloaded\r\n",
        ),
        (["EXISTS", "users:hit", "users:hit", "users:null", "users:row"], b":2\r\n"),
        (["TTL", "users:hit"], b":-1\r\n"),
        (["PTTL", "users:row"], b":-2\r\n"),
        (["DBSIZE"], b":2\r\n"),
        (["SELECT", "0"], b"+OK\r\n"),
        (["SELECT", "1"], b"-ERR DB index is out of range\r\n"),
        (["AUTH", "default", "x"], b"+OK\r\n"),
        (["AUTH", "eve", "x"], b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        (["HELLO", "4"], b"-NOPROTO unsupported protocol version\r\n"),
        (["RESET"], b"+RESET\r\n"),
        (["CLIENT", "SETNAME", "me"], b"+OK\r\n"),
        (["CLIENT", "SETINFO", "LIB-NAME", "redis-py"], b"+OK\r\n"),
        (["CLIENT", "NO-EVICT", "on"], b"+OK\r\n"),
        (["CLIENT", "GETNAME"], b"$-1\r\n"),
        (["CONFIG", "GET", "save"], b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        (["CONFIG", "GET", "append*", "nothing"], b"*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
        (["CLUSTER", "KEYSLOT", "users:hit"], b":%d\r\n" % slot_of(b"users:hit")),
        (
            ["COMMAND", "INFO", "get"],
            b"*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_the_reply_on_the_wire(client: Client, words: list[str | bytes], reply: bytes) -> None:
    """Each command answers as a Redis client expects."""
    assert client.raw(command(*words), len(reply)) == reply


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["NONSENSE", "a", "b"], "ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b'"),
        (["GET"], "ERR wrong number of arguments for 'get' command"),
        (["PING", "a", "b"], "ERR wrong number of arguments for 'ping' command"),
        (["GET", "users:%"], "KEY_INVALID"),
        (["GET", "nobody:1"], "CACHE_UNKNOWN"),
        (["EXISTS", "nobody:1"], "CACHE_UNKNOWN"),
        (["GET", "{users:1}@rubbish"], "TOKEN_INVALID"),
        (["TTL", "{users:1}@rubbish"], "ERR this command takes a key without a token"),
        (["SET", "users:1", "x"], "READ_ONLY"),
        (["DEL", "users:1"], "READ_ONLY"),
        (["DEL", "nobody:1"], "CACHE_UNKNOWN"),
        (["AUTH", "x"], "ERR AUTH <password> called without any password"),
        (["HELLO", "3", "AUTH", "eve", "x"], "WRONGPASS"),
        (["HELLO", "3", "SETNAME"], "ERR Syntax error"),
        (["CLIENT", "SETNAME", "a b"], "ERR Client names cannot contain spaces"),
        (["CLIENT", "KILL", "x"], "ERR unknown subcommand 'KILL' of CLIENT"),
        (["CLIENT", "REPLY", "OFF"], "ERR CLIENT REPLY takes only ON here"),
        (["CONFIG", "SET", "save", ""], "ERR CONFIG knows only GET"),
        (
            ["KEYS", "*"],
            (
                "ERR KEYS is not offered: memory holds what was asked for, not what there is: SNAP.KEYS lists the"
                " keys of a store cache, and of a cache of rows those in memory; DBSIZE"
            ),
        ),
        (["CLUSTER", "SLOTS"], "ERR This instance has cluster support disabled"),
        (["SNAP.GET", "users:1", "ATLEAST"], "ERR ATLEAST needs a value"),
        (["SNAP.GET", "users:1", "ATLEAST", b"\xff"], "TOKEN_INVALID"),
        (["SNAP.GET", "users:1", "STRONG", "STRONG"], "ERR SNAP.GET takes one of"),
        (["SNAP.GET", "users:1", "MAYBE"], "ERR SNAP.GET has no option 'MAYBE'"),
        (["SNAP.GET", "users:1", "TIMEOUT", "0"], "ERR TIMEOUT must be a whole number"),
        (["SNAP.TOKEN", "WEAK"], "ERR syntax"),
        (["SNAP.TOKEN", "TICKET", "18446744073709551616"], "ERR xid must be a whole number"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_a_refusal_names_its_reason(client: Client, words: list[str | bytes], error: str) -> None:
    """The first word of an error is its code, and the connection goes on."""
    reply = client.ask(*words)
    assert isinstance(reply, hiredis.ReplyError)
    assert str(reply).startswith(error)
    assert client.ask("PING") == b"PONG"


@pytest.mark.parametrize("code", CODES)
def test_every_error_of_the_tree_travels_by_its_code(running: Running, client: Client, code: str) -> None:
    """An error from the node arrives as one line: its code, or Redis' name of it, then its message."""
    word = {"UNAUTHENTICATED": "NOAUTH", "PERMISSION_DENIED": "NOPERM"}.get(code, code)
    running.do(lambda: running.node.rows.update({"users:row": failed(code)}))
    assert str(client.ask("GET", "users:row")).startswith(f"{word} ")
    assert str(client.ask("MGET", "users:hit", "users:row")).startswith(f"{word} ")
    assert client.ask("PING") == b"PONG"


def test_a_defect_is_an_internal_error_of_that_command_only(
    running: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody foresaw is logged and told without its text."""
    running.do(lambda: running.node.rows.update({"users:row": ZeroDivisionError("secret")}))
    assert str(client.ask("GET", "users:row")).startswith("INTERNAL ")
    assert client.ask("PING") == b"PONG"
    assert "ZeroDivisionError" in caplog.text


def test_a_null_is_underscore_in_resp3(client3: Client) -> None:
    """A missing row is the null of the protocol spoken, on the hit path and off it."""
    assert client3.raw(command("GET", "users:null"), 3) == b"_\r\n"
    assert client3.raw(command("GET", "users:none"), 3) == b"_\r\n"
    assert client3.raw(command("MGET", "users:null"), 7) == b"*1\r\n_\r\n"


def test_an_expired_entry_is_no_hit(node: MemoryNode, running: Running, client: Client) -> None:
    """A ttl that has passed sends the read to the node."""
    running.do(lambda: node.keep("users:row", b"old", until_s=monotonic() - 1))
    assert client.ask("GET", "users:row") == b"loaded"
    assert client.ask("TTL", "users:row") == -2


def test_without_a_fresh_watermark_the_node_decides(node: MemoryNode, client: Client) -> None:
    """When the feed stands still, the door answers nothing by itself, alone, in a pipeline, in MGET."""
    assert client.ask("GET", "users:hit") == b"value"
    assert node.tried == []
    node.fresh_until_s = monotonic() - 1
    assert client.ask("GET", "users:hit") == b"value"
    client.send(command("GET", "users:hit") * 2)
    assert client.replies(2) == [b"value"] * 2
    assert client.ask("MGET", "users:hit") == [b"value"]
    assert node.tried == ["users:hit"] * 4


def test_the_ttl_is_what_remains(node: MemoryNode, running: Running, client: Client) -> None:
    """TTL is in seconds, PTTL in milliseconds, both rounded up."""
    running.do(lambda: node.keep("users:hit", b"value", until_s=monotonic() + 1000))
    ttl, pttl = client.ask("TTL", "users:hit"), client.ask("PTTL", "users:hit")
    assert isinstance(ttl, int)
    assert isinstance(pttl, int)
    assert 900 < ttl <= 1000
    assert 900_000 < pttl <= 1_000_000


def test_hits_are_counted_once_and_raise_the_frequency(
    node: MemoryNode, running: Running, client: Client
) -> None:
    """Alone, in a pipeline, in MGET: a hit is one hit, and the eviction policy learns of it up to 3."""
    entry = node.store.index[b"users:hit"]
    before = node.hits
    client.send(command("GET", "users:hit"))
    assert client.reply() == b"value"
    assert entry.frequency == 1
    client.send(command("GET", "users:hit") * 3)
    assert client.replies(3) == [b"value"] * 3
    assert client.ask("MGET", "users:hit", "users:hit") == [b"value"] * 2
    assert (node.hits - before, entry.frequency) == (6, 3)


def test_a_full_reply_says_as_of_when(node: MemoryNode, client3: Client) -> None:
    """SNAP.GET gives value, token, age, state and source; a map in RESP3, pairs in RESP2."""
    full = {
        b"value": b"value",
        b"as_of": node.token(SNAPSHOT, INCARNATION).encode(),
        b"age_ms": -1,
        b"state": b"FRESH",
        b"source": b"local",
    }
    assert client3.ask("SNAP.GET", "users:hit") == full
    client3.ask("HELLO", "2")
    assert client3.ask("SNAP.GET", "users:hit") == [part for pair in full.items() for part in pair]


@pytest.mark.parametrize("option", [(), ("TIMEOUT", "5000")])
def test_a_full_reply_is_sent_from_bytes_and_counted(
    node: MemoryNode, client3: Client, option: tuple[str, ...]
) -> None:
    """Without options memory alone is asked, as by a GET; with some the key is parsed. Both are hits."""
    before, entry = node.hits, node.store.index[b"users:hit"]
    client3.ask("SNAP.GET", "users:hit", *option)
    assert (node.hits - before, entry.frequency, len(node.tried)) == (
        1,
        1 - len(option) // 2,
        len(option) // 2,
    )


def test_an_entry_that_has_ended_is_not_told(node: MemoryNode, client3: Client) -> None:
    """Nor one of a memory that has not followed for too long, nor while its incarnation is not known."""
    node.keep("users:old", b"old", until_s=0.0)
    reply = client3.ask("SNAP.GET", "users:old")
    assert isinstance(reply, dict)
    assert reply[b"source"] == b"load"
    for name, value in (("fresh_until_s", 0.0), ("incarnation", None)):
        target = node if name == "fresh_until_s" else node.timeline
        kept = getattr(target, name)
        setattr(target, name, value)
        before = len(node.tried)
        client3.ask("SNAP.GET", "users:hit")
        setattr(target, name, kept)
        assert len(node.tried) == before + 1, name


def test_a_full_reply_of_a_missing_row_holds_null(client3: Client) -> None:
    """A row that does not exist is an answer with its own snapshot."""
    reply = client3.ask("SNAP.GET", "users:none")
    assert isinstance(reply, dict)
    assert (reply[b"value"], reply[b"source"]) == (None, b"load")


def test_the_consistency_asked_reaches_the_node(node: MemoryNode, client: Client) -> None:
    """A token in the key or an option becomes the consistency of the read."""
    token, ticket = node.token(SNAPSHOT, INCARNATION), node.ticket(77)
    asked = [
        ("GET", "users:row"),
        ("GET", f"{{users:row}}@{token}"),
        ("MGET", f"{{users:row}}@{ticket}"),
        ("SNAP.GET", f"{{users:row}}@{token}"),
        ("SNAP.GET", "users:row", "atleast", ticket),
        ("SNAP.GET", "users:row", "EXACT", token),
        ("SNAP.GET", "users:row", "STRONG", "TIMEOUT", "100"),
    ]
    for words in asked:
        client.ask(*words)
    least, ticketed = AtLeast(SNAPSHOT, INCARNATION), AtLeast(Ticket(77), INCARNATION)
    consistencies = [BOUNDED, least, ticketed, least, ticketed, Exactly(SNAPSHOT, INCARNATION), STRONG]
    assert [(key, consistency) for key, consistency, _ in node.asked] == [
        ("users:row", consistency) for consistency in consistencies
    ]


def test_a_key_with_a_token_is_a_hit_when_memory_satisfies_it(node: MemoryNode, client: Client) -> None:
    """The token does not hide the entry."""
    assert client.ask("GET", f"{{users:hit}}@{node.token(SNAPSHOT, INCARNATION)}") == b"value"
    assert node.asked == []


def test_the_timeout_shortens_the_deadline_only(node: MemoryNode, client: Client) -> None:
    """TIMEOUT counts from now and never exceeds the node's request timeout."""
    for timeout_ms in ("100", "3600000"):
        client.ask("SNAP.GET", "users:row", "TIMEOUT", timeout_ms)
    left_s = [deadline_s - monotonic() for _, _, deadline_s in node.asked]
    assert left_s[0] <= 0.1
    assert left_s[1] <= node.config.request_timeout_s


def test_tokens_are_of_the_snapshot_asked_for(node: MemoryNode, client: Client) -> None:
    """SNAP.TOKEN names the watermark, STRONG a newer snapshot, TICKET a transaction."""
    plain, strong = client.ask("SNAP.TOKEN"), client.ask("SNAP.TOKEN", "STRONG")
    ticket = client.ask("SNAP.TOKEN", "TICKET", str(2**40))
    assert isinstance(plain, bytes)
    assert isinstance(strong, bytes)
    assert isinstance(ticket, bytes)
    assert node.position(plain.decode()) == SNAPSHOT
    assert str(node.position(strong.decode())) == "200:200:"
    assert node.position(ticket.decode()) == Ticket(2**40)


def test_hello_introduces_the_node_in_the_protocol_agreed(client: Client) -> None:
    """HELLO 3 answers as a map, HELLO 2 as pairs, and sets the connection's name."""
    greeting = client.ask("HELLO", "3", "AUTH", "default", "x", "SETNAME", "me")
    assert isinstance(greeting, dict)
    assert (greeting[b"server"], greeting[b"proto"], greeting[b"role"]) == (b"redis", 3, b"master")
    assert client.ask("CLIENT", "GETNAME") == b"me"
    assert isinstance(client.ask("HELLO", "2"), list)


def test_reset_forgets_what_was_said(client3: Client) -> None:
    """After RESET the connection is as new: RESP2 and nameless."""
    client3.ask("CLIENT", "SETNAME", "me")
    assert client3.ask("RESET") == b"RESET"
    assert client3.raw(command("CLIENT", "GETNAME"), 5) == b"$-1\r\n"


def test_a_client_can_describe_itself(client: Client) -> None:
    """CLIENT INFO shows what the client said, and CLIENT ID tells it from others."""
    client.ask("CLIENT", "SETINFO", "lib-ver", "1.2")
    described = client.ask("CLIENT", "INFO")
    assert isinstance(described, bytes)
    assert f"id={client.ask('CLIENT', 'ID')} ".encode() in described
    assert b"lib-ver=1.2" in described


def test_info_has_the_doors_and_the_nodes_numbers_one_per_line(client: Client) -> None:
    """INFO joins both; a line end inside a value cannot make a line of its own."""
    everything = client.ask("INFO")
    assert isinstance(everything, bytes)
    assert b"redis_version:" in everything
    assert b"connections:1\r\n" in everything
    assert b"last_error:two lines\r\n" in everything
    reads = client.ask("INFO", "READS")
    assert isinstance(reads, bytes)
    assert b"redis_version" not in reads


def test_commands_describe_themselves(client3: Client) -> None:
    """COMMAND, COUNT, LIST and DOCS speak of the same commands."""
    entries, names = client3.ask("COMMAND"), client3.ask("COMMAND", "LIST")
    documentation = client3.ask("COMMAND", "DOCS")
    assert isinstance(entries, list)
    assert isinstance(documentation, dict)
    assert [entry[0] for entry in entries] == names == list(documentation)
    assert client3.ask("COMMAND", "COUNT") == len(entries)
    chosen = client3.ask("COMMAND", "DOCS", "snap.get", "nothing")
    assert isinstance(chosen, dict)
    assert list(chosen) == [b"snap.get"]


def test_time_is_the_clock_on_the_wall(client: Client) -> None:
    """TIME is seconds and microseconds."""
    answer = client.ask("TIME")
    assert isinstance(answer, list)
    seconds, micros = map(int, answer)
    assert seconds > 1_700_000_000
    assert 0 <= micros < 1_000_000


def test_inline_commands_work(client: Client) -> None:
    """A person with telnet gets answers."""
    assert client.raw(b"\r\nget users:hit\r\n", 11) == b"$5\r\nvalue\r\n"
