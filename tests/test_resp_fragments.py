"""However a client's bytes are cut, and whatever they are, its replies come as if it had asked one by one."""

import asyncio
from collections.abc import Awaitable, Callable

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.doors.resp.arrivals import Peer
from cluster.doors.resp.connection import Connection
from cluster.doors.resp.door import RespDoor
from cluster.doors.resp.shapes import MAX_GET_BYTES, MAX_TAIL_BYTES
from doors import MemoryNode, command, resp_config
from snapring.errors import Unavailable

KEYS = ["users:hit", "users:null", "users:ended", "users:miss", "users:none", "users:broken", "users:bad%"]
TALK = st.sampled_from(
    [
        *((name, key) for name in ("GET", "get", "Get", "TTL", "SNAP.GET") for key in KEYS),
        ("MGET", "users:hit", "users:miss", "users:null"),
        ("MGET", "users:hit", "users:broken"),
        ("GET",),
        ("PING",),
        ("ECHO", b"*1\r\n$3\r\nGET\r\n$\xff"),
        ("HELLO", "2"),
        ("HELLO", "3"),
        ("SET", "users:1", "x"),
        ("NONSENSE", "a"),
    ]
)


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written += data

    def close(self) -> None:
        """Remember it."""
        self.closing = True

    abort = close

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        """Addresses, and no TLS."""
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else None

    def can_write_eof(self) -> bool:
        """As a socket."""
        return True

    def set_write_buffer_limits(self, high: int) -> None:
        """Without effect."""

    def get_write_buffer_size(self) -> int:
        """Everything is always read."""
        return 0

    def pause_reading(self) -> None:
        """Without effect."""

    def resume_reading(self) -> None:
        """Without effect."""

    def write_eof(self) -> None:
        """Without effect."""


def node() -> MemoryNode:
    """A node with hits, misses and failures."""
    memory = MemoryNode()
    memory.keep("users:hit", b"value\r\n*1\r\n")
    memory.keep("users:null", None)
    memory.keep("users:ended", b"old").until_s = -1.0
    memory.rows = {"users:miss": b"loaded", "users:broken": Unavailable("out of\r\nreach")}
    return memory


async def quiet(connection: Connection) -> None:
    """Wait until every command has been answered."""
    while connection._work.waiting:  # there is no event for it
        await asyncio.sleep(0)


def talk(scenario: Callable[[Connection], Awaitable[None]]) -> Wire:
    """What a door writes to a client that does as ``scenario`` says."""

    async def talking() -> Wire:
        wire = Wire()
        connection = RespDoor(node(), resp_config(max_pipeline=4))._connection(Peer("127.0.0.1", 1))
        connection.connection_made(wire)  # type: ignore[arg-type]
        await scenario(connection)
        await quiet(connection)
        connection.connection_lost(None)
        return wire

    return asyncio.run(talking())


def in_pieces(pieces: list[bytes]) -> bytes:
    """What a client gets that sends ``pieces`` without waiting."""

    async def scenario(connection: Connection) -> None:
        for piece in pieces:
            connection.data_received(piece)

    return bytes(talk(scenario).written)


def one_by_one(commands: list[bytes]) -> bytes:
    """What a client gets that awaits each reply."""

    async def scenario(connection: Connection) -> None:
        for each in commands:
            connection.data_received(each)
            await quiet(connection)

    return bytes(talk(scenario).written)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces that end at ``cuts``."""
    ends = [*sorted(cuts), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@settings(max_examples=150, deadline=None)
@given(st.lists(TALK, min_size=1, max_size=12), st.data())
def test_any_cut_of_any_commands_gives_the_replies_of_one_at_a_time(
    said: list[tuple[str | bytes, ...]], data: st.DataObject
) -> None:
    """Hits, misses, errors and protocol changes answer in order, however the pipeline is cut."""
    sent = [command(*words) for words in said]
    raw = b"".join(sent)
    expected = one_by_one(sent)
    assert in_pieces(cut(raw, data.draw(st.lists(st.integers(0, len(raw)))))) == expected
    assert in_pieces([raw]) == expected


def test_byte_by_byte_is_a_cut_too() -> None:
    """One byte at a time gives the same replies."""
    sent = [command("GET", key) for key in KEYS] + [command("HELLO", "3"), command("MGET", *KEYS[:4])]
    raw = b"".join(sent)
    assert in_pieces([raw[at : at + 1] for at in range(len(raw))]) == one_by_one(sent)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=30)
        | TALK.map(lambda words: command(*words))
        | st.sampled_from([b"*", b"$", b"\r\n"]),
        max_size=8,
    )
)
def test_rubbish_gets_well_formed_replies_and_at_most_one_end(pieces: list[bytes]) -> None:
    """Whatever is sent, what comes back parses as RESP, and a breach of the protocol comes last."""
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    reader.feed(in_pieces(pieces))
    replies = list(iter(reader.gets, Ellipsis))
    assert not reader.has_data()
    breaches = [at for at, reply in enumerate(replies) if "Protocol error" in str(reply)]
    assert breaches in ([], [len(replies) - 1])


@pytest.mark.parametrize("tail", [b"", b"*1\r\n:1\r\n"])
def test_the_end_waits_for_the_replies_before_it(tail: bytes) -> None:
    """QUIT and a malformed command end the connection after earlier misses have been answered."""

    async def scenario(connection: Connection) -> None:
        end = tail or command("QUIT")
        connection.data_received(command("GET", "users:miss") + end + command("PING"))

    written = bytes(talk(scenario).written)
    assert written.startswith(b"$6\r\nloaded\r\n" + (b"-ERR Protocol error" if tail else b"+OK\r\n"))
    assert b"PONG" not in written


def test_a_get_inside_a_value_is_no_get() -> None:
    """A piece that looks like a whole GET, but belongs to a command begun before, is not taken for one."""
    inner = command("GET", "users:hit")
    begun = b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % len(inner)
    expected = b"$%d\r\n%b\r\n" % (len(inner), inner)
    assert in_pieces([begun, inner, b"\r\n"]) == expected
    assert in_pieces([begun, inner + inner[:2]]) == expected


@pytest.mark.parametrize("announced", [b"8", b"10", b"09", b"90", b"x"])
def test_a_get_that_announces_another_size_is_no_hit(announced: bytes) -> None:
    """The hit path reads a wrong size as the parser does, alone and within a pipeline."""
    hit = command("GET", "users:hit")
    lying = hit.replace(b"$9", b"$" + announced)
    for raw in (lying + b"\r\n" * 50, hit + lying + hit, hit * 3 + lying * 2):
        assert in_pieces([raw]) == in_pieces([raw[at : at + 1] for at in range(len(raw))])


def test_what_follows_a_get_may_have_any_length() -> None:
    """Also one that the longest key gives a whole GET, but not what stands behind the head of one."""
    hit = command("GET", "users:hit")
    for size in range(MAX_TAIL_BYTES - 40, MAX_GET_BYTES):
        echo = command("ECHO", b"x" * size)
        assert in_pieces([hit + echo]) == in_pieces([hit, echo])


def test_a_long_pipeline_is_executed_in_several_turns() -> None:
    """Thousands of commands received at once leave turns of the loop to other clients."""

    async def scenario(connection: Connection) -> None:
        connection.data_received(command("PING") * 3000)
        assert 0 < len(connection._work._held) < 3000

    assert talk(scenario).written == b"+PONG\r\n" * 3000
