"""What nodes tell each other: read back as written, across versions, and harmless whatever the bytes are."""

import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers import wire
from peers.errors import MessageInvalid, PeerIncompatible
from peers.flat import MAX_FIELDS
from peers.wire import (
    MAX_TIMEOUT_S,
    MAX_TRACE_BYTES,
    Answers,
    Call,
    Calls,
    Hello,
    Leaves,
    Message,
    call_of,
    call_row,
    decode,
    encode,
)

HELLO = Hello(
    oldest=1,
    newest=1,
    node="snapring-0",
    instance="a1",
    ring=b"12345678",
    watermark=b"w",
    draining=True,
    door=":7379",
)
NUMBERS = st.integers(0, 2**64 - 1)
BODIES = st.binary(max_size=50)

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        oldest=NUMBERS,
        newest=NUMBERS,
        node=st.text(),
        instance=st.text(),
        ring=BODIES,
        watermark=st.none() | BODIES,
        draining=st.booleans(),
        door=st.text(),
    ),
    st.builds(
        Calls,
        BODIES,
        st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, int(MAX_TIMEOUT_S * 1e6)), BODIES)),
    ),
    st.builds(Answers, BODIES, st.lists(st.tuples(NUMBERS, st.none() | st.text(), BODIES))),
    st.builds(Leaves, BODIES, st.lists(NUMBERS)),
)

WRITTEN_BY_VERSION_1 = {
    "99000101aa736e617072696e672d30a26131c4083132333435363738c40177c3a53a37333739": HELLO,
    "9c010404c40831323334353637380701ce000f4240c40461736b65080200c400": Calls(
        b"12345678", [(7, 1, 1_000_000, b"aske"), (8, 2, 0, b"")]
    ),
    "9a020403c408313233343536373807c0c40461736b6508a4434f4445c400": Answers(
        b"12345678", [(7, None, b"aske"), (8, "CODE", b"")]
    ),
    "96030401c408313233343536373807cd0100": Leaves(b"12345678", [7, 256]),
}
"""Bytes that nodes of version 1 send. Never edit them: nodes that are out there will not either."""

CALLS_2 = (
    "980406c4083132333435363738c41000000000000000070000000"
    "000000008c4020102c408000f424000000000c40461736b65c400"
)
ANSWERS_2 = "960504c4083132333435363738c41000000000000000070000000000000008c40461736b65c400"


@given(MESSAGES)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    """Every kind, with whatever its fields may hold."""
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    ("written", "message"), WRITTEN_BY_VERSION_1.items(), ids=lambda each: str(each)[:20]
)
def test_version_1_is_written_and_read_as_ever(written: str, message: Message) -> None:
    """A change of the format that older nodes would not understand turns this red."""
    assert decode(bytes.fromhex(written)) == message
    fields, ours = msgpack.unpackb(bytes.fromhex(written)), msgpack.unpackb(encode(message))
    assert ours[: len(fields)] == fields
    assert len(ours) == len(fields) or isinstance(message, Hello), "only a hello may say more"


COLUMNS: st.SearchStrategy[Calls | Answers] = st.builds(
    Calls,
    BODIES,
    st.lists(
        st.tuples(NUMBERS, st.integers(0, 255), st.integers(0, int(MAX_TIMEOUT_S * 1e6)), BODIES), min_size=1
    ),
) | st.builds(Answers, BODIES, st.lists(st.tuples(NUMBERS, st.none(), BODIES), min_size=1))


@given(COLUMNS)
def test_columns_are_read_as_they_were_written(message: Calls | Answers) -> None:
    """From version 2 on calls, and answers without errors, are in columns; to older peers they are as ever."""
    assert decode(encode(message, 2)) == decode(encode(message, 1)) == message
    kinds = [msgpack.unpackb(encode(message, version))[0] for version in (1, 2)]
    assert kinds == ([1, 4] if isinstance(message, Calls) else [2, 5])


@given(MESSAGES)
def test_version_2_says_what_version_1_says(message: Message) -> None:
    """Errors among the answers, and messages without rows, included."""
    if isinstance(message, Calls):
        message = Calls(message.epoch, [(row[0], row[1] % 256, *row[2:]) for row in message.rows])
    assert decode(encode(message, 2)) == message


def test_version_2_is_written_and_read_as_ever() -> None:
    """Never edit these bytes: nodes that are out there will not either."""
    calls = Calls(b"12345678", [(7, 1, 1_000_000, b"aske"), (8, 2, 0, b"")])
    answers = Answers(b"12345678", [(7, None, b"aske"), (8, None, b"")])
    for message, written in ((calls, CALLS_2), (answers, ANSWERS_2)):
        assert (encode(message, 2).hex(), decode(bytes.fromhex(written))) == (written, message)


@pytest.mark.parametrize("kind", [4, 5])
@given(
    place=st.integers(0, 8),
    field=st.none() | st.integers(-1, 9) | st.binary(max_size=17) | st.text(max_size=3),
)
def test_columns_that_do_not_fit_are_refused(kind: int, place: int, field: object) -> None:
    """Or are whole: as many numbers as bodies, each of them bytes, each call with a time that a call may have."""
    fields = msgpack.unpackb(bytes.fromhex({4: CALLS_2, 5: ANSWERS_2}[kind]))
    fields[place % len(fields)] = field
    try:
        message = decode(msgpack.packb(fields))
    except MessageInvalid:
        return
    if isinstance(message, Calls | Answers):
        assert decode(encode(message, 2)) == message
        assert all(type(row[-1]) is bytes for row in message.rows)


def test_a_reader_passes_over_columns_that_a_newer_version_adds() -> None:
    """Between those that it knows, traces of nobody among them, and the bodies."""
    kind, first, *known = msgpack.unpackb(bytes.fromhex(CALLS_2))
    more = msgpack.packb([kind, first + 2, *known[: first - 2], b"", b"more", *known[first - 2 :]])
    assert decode(more) == decode(bytes.fromhex(CALLS_2))


TRACED = Calls(b"12345678", [(7, 1, 1_000_000, b"aske"), (8, 2, 0, b"")], ((8, b"00-a-b-01"),))


def test_traces_travel_with_the_calls_that_have_one() -> None:
    """Calls of no trace are the same bytes as ever; a peer of version 1 hears nothing of traces."""
    untraced = Calls(TRACED.epoch, TRACED.rows)
    assert decode(encode(TRACED, 2)) == TRACED
    assert encode(untraced, 2).hex() == CALLS_2
    assert decode(encode(TRACED, 1)) == untraced


def test_whoever_does_not_know_of_traces_finds_the_calls_all_the_same() -> None:
    """As nodes that are out there read columns: those that they know, and the bodies from ``first`` on."""
    kind, first, epoch, *rest = msgpack.unpackb(encode(TRACED, 2))
    known = msgpack.packb([kind, 6, epoch, *rest[:3], *rest[first - 3 :]])
    assert known.hex() == CALLS_2


@pytest.mark.parametrize(
    "told",
    [
        [b"1234567"],
        [b"12345678"],
        [7, b"00"],
        [b"12345678", "text"],
        [b"12345678", b"0" * (MAX_TRACE_BYTES + 1)],
    ],
)
def test_traces_that_are_none_are_refused(told: list[object]) -> None:
    """One for each number, bytes, and no more of them than what a context takes."""
    kind, first, *known = msgpack.unpackb(bytes.fromhex(CALLS_2))
    message = msgpack.packb([kind, first + len(told), *known[: first - 2], *told, *known[first - 2 :]])
    with pytest.raises(MessageInvalid):
        decode(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hello2(Hello):
    load: float = 0.5


def test_a_reader_of_version_2_understands_version_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """What version 1 did not send has the default that version 2 gives it."""
    hello, calls, *_ = map(bytes.fromhex, WRITTEN_BY_VERSION_1)
    longer = (*wire._CALL, wire._Column(frozenset({int}), default=9))
    monkeypatch.setattr(wire, "Hello", _Hello2)
    monkeypatch.setattr(wire, "_CALL", longer)
    read = decode(hello)
    assert isinstance(read, _Hello2)
    assert (read.node, read.load) == ("snapring-0", 0.5)
    assert decode(calls).rows == [(7, 1, 1_000_000, b"aske", 9), (8, 2, 0, b"", 9)]  # type: ignore[union-attr]


def test_a_reader_of_version_1_passes_over_what_version_2_adds() -> None:
    """More fields in a hello, in a row, and before the rows."""
    assert decode(msgpack.packb([*msgpack.unpackb(encode(HELLO)), "more", 0.5])) == HELLO
    rows = [7, 1, 50, b"x", "more", 8, 2, 60, b"y", "more"]
    assert decode(msgpack.packb([1, 6, 5, b"ring", "new", None, *rows])) == Calls(
        b"ring", [(7, 1, 50, b"x"), (8, 2, 60, b"y")]
    )


def test_a_hello_without_its_later_fields_has_their_defaults() -> None:
    """Those that say who speaks must be there."""
    short = msgpack.unpackb(encode(HELLO))[:6]
    assert decode(msgpack.packb(short)) == replace(HELLO, watermark=None, draining=False, door="")
    with pytest.raises(MessageInvalid, match="ends before"):
        decode(msgpack.packb(short[:5]))


@given(st.binary(max_size=200) | MESSAGES.map(encode), st.data())
def test_hostile_bytes_raise_one_typed_error(data: bytes, draw: st.DataObject) -> None:
    """Random bytes, and messages with bytes changed, cut or added, are a message or `MessageInvalid`."""
    at = draw.draw(st.integers(0, len(data)))
    hostile = data[:at] + draw.draw(st.binary(max_size=3)) + data[at + draw.draw(st.integers(0, 2)) :]
    try:
        message = decode(hostile)
    except MessageInvalid:
        return
    assert decode(encode(message)) == message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(msgpack.packb)
)
def test_any_msgpack_is_a_message_or_invalid(data: bytes) -> None:
    """Of whatever types, nested or not."""
    with suppress(MessageInvalid):
        assert isinstance(decode(data), Message)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdc\xff\xff" * 500,
        b"\xdd\xff\xff\xff\xff" * 200,
        b"\x91" * 2**20,
        b"\xdd\x00\x10\x00\x00" + b"\x90" * 2**20,
        b"\xdd\x00\x10\x00\x00" + b"\x80" * 2**20,
        b"\xdd\x00\x10\x00\x00" + b"\xa2xx" * 2**20,
        b"\xdd\x7f\xff\xff\xff\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
    ],
    ids=lambda bomb: f"{bomb[:8].hex()} of {len(bomb)}",
)
def test_a_decode_bomb_takes_little_memory(bomb: bytes) -> None:
    """Less than twice its own size, and a bounded rest, before it is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(MessageInvalid):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb) + 100 * MAX_FIELDS
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [9],
        [-1],
        [True, 4, 1, b"ring"],
        [3, 4, 1],
        [3, 4, 1, "ring"],
        [3, 4, 0, b"ring"],
        [3, 3, 1, b"ring"],
        [3, 5, 1, b"ring"],
        [3, None, 1, b"ring"],
        [1, 4, 3, b"ring", 1, 2, 3],
        [1, 4, 4, b"ring", 1, 2, 3, b"x", 4],
        [1, 4, 4, b"ring", 1, 2, -1, b"x"],
        [1, 4, 4, b"ring", 1, 2, int(MAX_TIMEOUT_S * 1e6) + 1, b"x"],
        [1, 4, 4, b"ring", 1, 2, 3, "x"],
        [1, 4, 4, b"ring", True, 2, 3, b"x"],
        [1, 4, 4, b"ring", -1, 2, 3, b"x"],
        [1, 4, 4, b"ring", 1, -2, 3, b"x"],
        [2, 4, 3, b"ring", -1, None, b"x"],
        [3, 4, 1, b"ring", -1],
        [2, 4, 3, b"ring", 1, 2, b"x"],
    ],
    ids=repr,
)
def test_a_message_that_breaks_the_format_is_refused(fields: list[object]) -> None:
    """Each rule of the format, broken alone."""
    with pytest.raises(MessageInvalid):
        decode(msgpack.packb(fields))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x96\x03\x04\x01\xc4\x01r\x07",
        b"\x94\x03\x04\x01\xc4\x01r\x07",
        b"\x95\x03\x04\x01\xc4\x01r\xcd\x01",
    ],
    ids=repr,
)
def test_an_array_of_another_length_than_it_says_is_refused(data: bytes) -> None:
    """Cut short, with something behind it, or cut within a field."""
    with pytest.raises(MessageInvalid):
        decode(data)


@given(st.floats(0, MAX_TIMEOUT_S))
def test_the_time_left_travels_to_the_microsecond(left_s: float) -> None:
    """Rounded up, so that a little is not nothing."""
    call = call_of(call_row(1, Call(kind=2, body=b"x", timeout_s=60.0), left_s))
    assert left_s <= call.timeout_s <= left_s + 2e-6
    assert (call.kind, call.body) == (2, b"x")


@pytest.mark.parametrize(("left_s", "sent_s"), [(-1.0, 0.0), (float("inf"), MAX_TIMEOUT_S), (1e-9, 1e-6)])
def test_the_time_left_is_bounded(left_s: float, sent_s: float) -> None:
    """Never below nothing, never above `MAX_TIMEOUT_S`."""
    assert call_of(call_row(1, Call(kind=2, body=b"", timeout_s=1.0), left_s)).timeout_s == sent_s


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9), st.integers(0, 9))
def test_the_newest_version_that_both_understand_is_spoken(a: int, more_a: int, b: int, more_b: int) -> None:
    """Where there is none, both sides say so."""
    one, other = replace(HELLO, oldest=a, newest=a + more_a), replace(HELLO, oldest=b, newest=b + more_b)
    common = set(range(a, a + more_a + 1)) & set(range(b, b + more_b + 1))
    if common:
        assert wire.agreed_version(one, other) == wire.agreed_version(other, one) == max(common)
    else:
        with pytest.raises(PeerIncompatible, match="upgrade"):
            wire.agreed_version(one, other)
