"""What nodes ask each other about keys, as bytes. Pure.

Flat arrays (`peers.flat`); a newer version may add fields to the end, which an older reader passes over::

    get    key | definition | consistency | position | incarnation
    reply  state | value | as_of | incarnation | age_s | version

The plainest question has forms of its own, from version `PLAIN_VERSION` of the protocol on::

    plain  definition, 8 bytes | key
    value  1 byte | age_s, 8 bytes | value

It is a `Get` as `BOUNDED`, by who wants to know the value alone. The byte says what of it is so: 1, that it is
STALE, and 2, that there is no value.

Only what its receiver can judge by itself travels, so that an owner's mistake is not the asker's. A snapshot
is its text, a ticket its transaction's number. Times are spans, never readings of a clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Final

from cluster.config import CacheConfig
from cluster.peering.fields import MAX_INCARNATION, is_of, natural, read_snapshot, snapshot_field, span
from cluster.requests import (
    BOUNDED,
    STRONG,
    AtLeast,
    Bounded,
    Consistency,
    Exactly,
    Reply,
    Source,
    State,
    Strong,
)
from cluster.snapshots import MAX_XID
from cluster.tokens import Position, Ticket
from cluster.writes import MAX_VERSION
from peers.errors import MessageInvalid
from peers.flat import Field, pack, unpack

GET: Final = 1
"""The kind of the call that asks for an answer."""
PLAIN: Final = 4
"""The kind of the call that asks for a value."""
PLAIN_VERSION: Final = 2

_DEFINITION_BYTES: Final = 8
_VALUE: Final = Struct("!Bd")
_STALE, _NO_VALUE = 1, 2
_TOLD: Final = (State.FRESH, State.STALE)
_BOUNDED, _STRONG, _AT_LEAST, _EXACTLY = range(4)
_STATES: Final[Mapping[object, State]] = {state.value: state for state in State}


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """Answer ``key``, a canonical text, of the cache that ``definition`` describes, as ``consistency`` asks."""

    key: bytes
    definition: bytes
    consistency: Consistency


def definition(cache: CacheConfig) -> bytes:
    """8 bytes that two nodes have in common for a cache only if its answers mean the same on both."""
    meaning = (
        cache.name,
        cache.kind,
        cache.sql,
        cache.single,
        cache.depends,
        float(cache.max_staleness_s),
        None if cache.stale_if_error_s is None else float(cache.stale_if_error_s),
        cache.max_rows,
        cache.encoding,
        *(("tenant_argument",) if cache.tenant_argument else ()),
    )
    return blake2b(repr(meaning).encode(), digest_size=_DEFINITION_BYTES).digest()


def definitions(caches: Iterable[CacheConfig]) -> Mapping[str, bytes]:
    """The `definition` of each cache, by its name."""
    return {cache.name: definition(cache) for cache in caches}


def encode_get(get: Get) -> bytes:
    """``get`` as bytes."""
    return pack((get.key, get.definition, *_consistency(get.consistency)))


def decode_get(body: bytes) -> Get:
    """The `Get` that ``body`` is. Raises `MessageInvalid`."""
    key, meaning, kind, position, incarnation = _fields(body, 5)
    try:
        return Get(
            key=is_of(bytes, key),
            definition=is_of(bytes, meaning),
            consistency=_read_consistency(is_of(int, kind), position, incarnation),
        )
    except ValueError as error:
        raise MessageInvalid(f"a question that is none: {error}") from error


def encode_reply(reply: Reply) -> bytes:
    """``reply`` as bytes, but for its source, which the asker knows better."""
    as_of = snapshot_field(reply.as_of)
    return pack((reply.state.value, reply.value, as_of, reply.incarnation, reply.age_s, reply.version))


def decode_reply(body: bytes, *, since_s: float, source: Source) -> Reply:
    """The `Reply` that ``body`` is, got from ``source`` by who asked ``since_s`` ago. Raises `MessageInvalid`.

    Its age is that which the peer found and all of ``since_s``, of which the peer knows only a part.
    """
    state, value, as_of, incarnation, age_s, version = _fields(body, 6)
    try:
        return Reply(
            value=None if value is None else is_of(bytes, value),
            as_of=read_snapshot(as_of),
            incarnation=natural(incarnation, MAX_INCARNATION),
            age_s=span(age_s) + since_s,
            state=_STATES[state],
            source=source,
            version=None if version is None else natural(version, MAX_VERSION),
        )
    except (ValueError, KeyError) as error:
        raise MessageInvalid(f"an answer that is none: {error}") from error


def encode_plain(key: bytes, definition: bytes) -> bytes:
    """The question for the value of ``key``."""
    return definition + key


def decode_plain(body: bytes) -> tuple[bytes, bytes]:
    """Key and definition, of whatever ``body`` is."""
    return body[_DEFINITION_BYTES:], body[:_DEFINITION_BYTES]


def encode_value(state: State, value: bytes | None, age_s: float) -> bytes:
    """The answer to a plain question."""
    told = _STALE if state is State.STALE else 0
    return _VALUE.pack(told | _NO_VALUE, age_s) if value is None else _VALUE.pack(told, age_s) + value


def decode_value(body: bytes) -> tuple[State, bytes | None, float]:
    """State, value and the age that the peer found, which is less than that on arrival. Raises `MessageInvalid`."""
    if len(body) < _VALUE.size:
        raise MessageInvalid("a value that is cut off")
    told, age_s = _VALUE.unpack_from(body)
    if not told and age_s >= 0.0:
        return State.FRESH, body[_VALUE.size :], age_s
    if told > _STALE | _NO_VALUE or not age_s >= 0.0 or (told & _NO_VALUE and len(body) > _VALUE.size):
        raise MessageInvalid("a value that is none")
    return _TOLD[told & _STALE], None if told & _NO_VALUE else body[_VALUE.size :], age_s


def _fields(body: bytes, count: int) -> list[Field]:
    fields = unpack(body)
    if len(fields) < count:
        raise MessageInvalid(f"a message of {len(fields)} fields, which needs {count}")
    return fields[:count]


def _consistency(asked: Consistency) -> tuple[int, Field, Field]:
    if isinstance(asked, Bounded):
        floor = asked.floor
        return (_BOUNDED, None, None) if floor is None else (_BOUNDED, *_demand(floor))
    if isinstance(asked, Strong):
        return _STRONG, None, None
    if isinstance(asked, AtLeast):
        return _AT_LEAST, *_demand(asked)
    return _EXACTLY, snapshot_field(asked.snapshot), asked.incarnation


def _demand(asked: AtLeast) -> tuple[Field, int]:
    position = asked.position
    return position.xid if isinstance(position, Ticket) else snapshot_field(position), asked.incarnation


def _read_consistency(kind: int, position: Field, incarnation: Field) -> Consistency:
    if kind == _BOUNDED:
        return BOUNDED if position is None else Bounded(_at_least(position, incarnation))
    if kind == _STRONG:
        return STRONG
    if kind == _AT_LEAST:
        return _at_least(position, incarnation)
    if kind == _EXACTLY:
        return Exactly(read_snapshot(position), natural(incarnation, MAX_INCARNATION))
    raise ValueError(f"a consistency that this version does not know: {kind!r}")


def _at_least(position: Field, incarnation: Field) -> AtLeast:
    return AtLeast(_read_position(position), natural(incarnation, MAX_INCARNATION))


def _read_position(field: Field) -> Position:
    return read_snapshot(field) if isinstance(field, str) else Ticket(natural(field, MAX_XID))
