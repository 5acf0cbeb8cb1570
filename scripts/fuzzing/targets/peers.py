"""What nodes tell each other: a message that is none is an error of one type, and no answer."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from random import Random
from typing import Final

import msgpack

from cluster.peering.copies import KEEP, TAKE, Copy, decode_copies, encode_copies
from cluster.peering.messages import (
    GET,
    PLAIN,
    Get,
    decode_get,
    decode_plain,
    decode_reply,
    decode_value,
    encode_get,
    encode_plain,
    encode_reply,
    encode_value,
)
from cluster.requests import BOUNDED, STRONG, AtLeast, Exactly, Reply, Source, State
from cluster.snapshots import MAX_XID, Snapshot
from cluster.tokens import Ticket
from peers.errors import MessageInvalid
from peers.failures import pack_failure, unpack_failure
from peers.flat import Field, unpack
from peers.wire import Answers, Calls, Hello, Leaves, Message, decode, encode
from scripts.fuzzing.answerer import KEY, MEANING, Answerer
from scripts.fuzzing.target import Stand, Target, hold
from snapring.errors import KeyInvalid, Overloaded, SnapringError

_SNAPSHOT: Final = Snapshot(100, 2**40, (103, 2**33))
_REPLY: Final = Reply(
    value=b"v", as_of=_SNAPSHOT, incarnation=7, age_s=0.5, state=State.FRESH, source=Source.LOAD, version=None
)
_COPY: Final = Copy(
    key=b"user:2",
    definition=MEANING,
    value=b"v",
    snapshot=_SNAPSHOT,
    incarnation=7,
    tags=(1, -2),
    ttl_s=inf,
    version=3,
)
_HELLO: Final = Hello(
    oldest=1, newest=2, node="a-0", instance="i", ring=b"12345678", watermark=b"w", door=":7379"
)
_MESSAGES: Final[tuple[Message, ...]] = (
    _HELLO,
    Calls(b"12345678", [(7, 1, 1_000_000, b"aske"), (2**64 - 1, 2, 0, b"")]),
    Answers(b"12345678", [(7, None, b"aske"), (8, "CODE", b"")]),
    Answers(b"12345678", [(7, None, b"aske")]),
    Leaves(b"12345678", [7, 256]),
)
_GETS: Final = (
    BOUNDED,
    STRONG,
    AtLeast(Ticket(MAX_XID), 7),
    AtLeast(_SNAPSHOT, 2**64 - 1),
    Exactly(_SNAPSHOT, 1),
)
_FIELDS: Final = (
    None,
    True,
    -1,
    0,
    1,
    255,
    2**32,
    2**64 - 1,
    -(2**63),
    0.5,
    inf,
    -inf,
    float("nan"),
    "",
    "FRESH",
    "1:2:",
    b"",
    b"x" * 8,
    KEY,
    b"user:}",
    b"user:%31",
    b"default/user:3",
    b"settings:a",
)


def made(_stand: Stand) -> Target:
    """The target."""
    return Peers()


class Peers(Target):
    """The first byte says what the rest is taken for."""

    max_bytes = 4096
    words = (
        b"\xc0",
        b"\xc4\x08",
        b"\xcf" + b"\xff" * 8,
        b"\xdc\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x81\x01",
        b"\xa5FRESH",
    )

    def __init__(self) -> None:
        self._answerer = Answerer()
        self._readers: tuple[Callable[[bytes], None], ...] = (
            _message,
            _get,
            _reply,
            _value,
            _copies,
            _failure,
            _plain,
            self._call,
        )

    def seeds(self) -> Iterable[bytes]:
        """One of every kind and version."""
        for message in _MESSAGES:
            yield b"\0" + encode(message)
            yield b"\0" + encode(message, 2)
        for demand in _GETS:
            yield b"\1" + encode_get(Get(key=KEY, definition=MEANING, consistency=demand))
        yield b"\2" + encode_reply(_REPLY)
        yield b"\3" + encode_value(State.STALE, b"value", 0.5)
        yield b"\3" + encode_value(State.FRESH, None, 0.5)
        yield b"\4" + encode_copies([_COPY, _COPY])
        for error in (
            SnapringError("no"),
            Overloaded("later", retry_after_s=1.0),
            KeyInvalid("no", position=3),
        ):
            code, rest = pack_failure(error)
            yield b"\5" + bytes([len(code)]) + code.encode() + rest
        question = encode_get(Get(key=KEY, definition=MEANING, consistency=BOUNDED))
        calls = (
            (GET, question),
            (TAKE, question),
            (PLAIN, encode_plain(KEY, MEANING)),
            (KEEP, encode_copies([_COPY])),
            (KEEP, encode_copies([replace(_COPY, key=b"user:}")])),
        )
        for kind, body in calls:
            yield bytes([7, kind]) + body
        yield b"\6" + encode_plain(KEY, MEANING)

    def attempt(self, data: bytes) -> None:
        """As the first byte says."""
        self._readers[(data[0] if data else 0) % len(self._readers)](data[1:])

    def _call(self, data: bytes) -> None:
        self._answerer.ask(data[0] if data else 0, data[1:])

    def changed(self, data: bytes, random: Random) -> bytes | None:
        """A field replaced, added or left out."""
        head = 2 if data[:1] == b"\7" else 1
        try:
            fields = unpack(data[head:])
        except MessageInvalid:
            return None
        at = random.randrange(len(fields) + 1)
        new: list[Field] = [random.choice(_FIELDS)] * random.choice((0, 1, 1, 2))
        fields[at : at + random.randrange(2)] = new
        return data[:head] + bytes(msgpack.packb(fields, unicode_errors="surrogateescape"))


def _message(data: bytes) -> None:
    try:
        message = decode(data)
    except MessageInvalid:
        return
    hold(decode(encode(message)) == message, "it is not read as it was written")
    if not isinstance(message, Calls) or all(row[1] < 256 for row in message.rows):
        hold(decode(encode(message, 2)) == message, "it is not read as version 2 writes it")


def _get(data: bytes) -> None:
    try:
        get = decode_get(data)
    except MessageInvalid:
        return
    hold(decode_get(encode_get(get)) == get, "a question is not read as it was written")


def _reply(data: bytes) -> None:
    try:
        reply = decode_reply(data, source=Source.LOAD, since_s=0.25)
    except MessageInvalid:
        return
    hold(reply.age_s >= 0.25, "an answer younger than the time since it was asked for")
    again = decode_reply(encode_reply(reply), source=Source.LOAD, since_s=0.0)
    hold(again == reply, "an answer is not read as it was written")


def _value(data: bytes) -> None:
    try:
        state, value, age_s = decode_value(data)
    except MessageInvalid:
        return
    hold(age_s >= 0.0, "an age below nothing")
    hold(
        decode_value(encode_value(state, value, age_s)) == (state, value, age_s),
        "a value is not read as it was written",
    )


def _copies(data: bytes) -> None:
    try:
        copies = [*decode_copies(data)]
    except MessageInvalid:
        return
    if copies:
        hold([*decode_copies(encode_copies(copies))] == copies, "copies are not read as they were written")


def _failure(data: bytes) -> None:
    size = data[0] if data else 0
    code = data[1 : 1 + size].decode("utf-8", "replace")
    try:
        error = unpack_failure(code, data[1 + size :])
    except MessageInvalid:
        return
    hold(isinstance(error, SnapringError), "a failure that is none of ours")
    again = unpack_failure(*pack_failure(error))
    hold(
        (type(again), again.code) == (type(error), error.code) or len(code) > 64,
        "it is another failure when it travels on",
    )
    hold(isinstance(str(again), str), "its message is none")


def _plain(data: bytes) -> None:
    key, meaning = decode_plain(data)
    hold(
        encode_plain(key, meaning) == data or len(data) < 8, "a plain question is not read as it was written"
    )
