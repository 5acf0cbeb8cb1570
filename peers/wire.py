"""The messages that nodes exchange, as bytes. Pure.

Each is a flat msgpack array (`peers.flat`) that begins with the number of its kind:

    hello    0 | the fields of `Hello`, in their order
    others   kind | first | stride | epoch | rows: ``stride`` fields each, the first of them at ``first``

    calls    1   a row: number, kind, time left in microseconds, body
    answers  2   a row: number, code of the error or None, body
    leaves   3   a row: number

From version 2 on, calls and answers without errors travel in columns, which cost both ends less::

    calls    4 | first | epoch | numbers | kinds | times left | a body for each, from ``first`` on
    answers  5 | first | epoch | numbers | the same

Each column is bytes: a number in 8, a kind in 1, a time in 4, big-endian. Calls of traced requests add, before
``first``, where whoever does not know of them passes over them: the column of their numbers, and for each its trace.

Versions. A newer one may add fields to the end of a hello, before ``first``, and to the end of
a row: an older reader passes over them. It gives each field that it adds a default, which stands where an
older peer did not send it. It sends messages of new kinds only to who understands its version.

The **epoch** is the hash of the sender's ring. Times are durations: clocks of two nodes are never compared.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, astuple, dataclass, fields
from itertools import chain, repeat
from math import ceil
from types import NoneType
from typing import Any, Final, NamedTuple, TypeVar, cast, get_args, get_type_hints

from peers.errors import MessageInvalid, PeerIncompatible
from peers.flat import MAX_FIELDS, Field, pack, unpack

OLDEST: Final = 1
NEWEST: Final = 2
MAX_ROWS: Final = MAX_FIELDS // 8 - 8
"""The most calls, answers or leaves in one message; room for rows twice as long as the longest today."""

MAX_TIMEOUT_S: Final = 3600.0
MAX_TRACE_BYTES: Final = 640
"""Room for a ``traceparent``, and a ``tracestate`` of the 512 characters that everybody shall pass on."""

ROW_OVERHEAD_BYTES: Final = 9 + 9 + 9 + 5
"""What a call takes besides its body, at most; an answer without an error takes less."""

_COLUMNS: Final = 2
"""The version from which on messages in columns are understood."""

_HELLO, _CALLS, _ANSWERS, _LEAVES, _CALL_COLUMNS, _ANSWER_COLUMNS = range(6)
_HEAD: Final = 4
_TRACES: Final = 6
_SECOND: Final = 1_000_000

T = TypeVar("T")


class Call(NamedTuple):
    """A request to a peer. What ``kind`` and ``body`` mean is between those who call and who answer.

    ``timeout_s`` is how long the caller waits from now on. ``trace`` is the context of the trace that the call is part
    of, at most `MAX_TRACE_BYTES`; empty where it is of none. Only columns carry it.
    """

    kind: int
    body: bytes
    timeout_s: float
    trace: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who speaks: the first message of each side, and again whenever something of it has changed.

    ``oldest`` and ``newest`` are the versions of the protocol that the speaker understands. ``instance`` tells
    lives of the same ``node`` apart. ``ring`` is the hash of its ring; ``watermark`` says, as the nodes
    encode it, how far it has followed the database, None if it vouches for nothing. ``door`` is where clients
    find it, ``host:port``; without a host, at the address where its peers do; empty if nowhere. ``secrets`` are the
    fingerprints of its secrets, see `peers.kinship`.
    """

    oldest: int
    newest: int
    node: str
    instance: str
    ring: bytes
    watermark: bytes | None = None
    draining: bool = False
    door: str = ""
    secrets: bytes = b""


CallRow = tuple[int, int, int, bytes]
"""A call: a number that the asker has not used before on this stream, kind, time left, body. See `call_row`."""

AnswerRow = tuple[int, str | None, bytes]
"""The outcome of the call of that number: a value, or the error (`peers.failures`) that has the code."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one asker; none asks for a sign of life. ``traces`` are the traces of some, by the calls' numbers."""

    epoch: bytes
    rows: Sequence[CallRow]
    traces: Sequence[tuple[int, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """Outcomes of calls, in any order."""

    epoch: bytes
    rows: Sequence[AnswerRow]


@dataclass(frozen=True, slots=True)
class Leaves:
    """Nobody waits for the answers to these calls any more."""

    epoch: bytes
    numbers: Sequence[int]


Message = Hello | Calls | Answers | Leaves


class _Column(NamedTuple):
    """One field of every row. ``default`` stands where an older peer's rows end before it."""

    types: frozenset[type]
    default: object = MISSING


_BYTES: Final = frozenset({bytes})
_WHOLE: Final = frozenset({int})
"""And never below 0."""

_NUMBER: Final = _Column(_WHOLE)
_CALL: Final = (_NUMBER, _Column(_WHOLE), _Column(_WHOLE), _Column(frozenset({bytes})))
_ANSWER: Final = (_NUMBER, _Column(frozenset({str, NoneType})), _Column(frozenset({bytes})))
_LEAVE: Final = (_NUMBER,)


def call_row(number: int, call: Call, left_s: float) -> CallRow:
    """``call`` with ``left_s`` to go, as it is sent."""
    return number, call.kind, ceil(min(left_s, MAX_TIMEOUT_S) * _SECOND) if left_s > 0.0 else 0, call.body


def call_of(row: CallRow) -> Call:
    """The call as its receiver sees it: ``timeout_s`` is what the asker had left when it was sent."""
    return Call(row[1], row[3], row[2] / _SECOND)


def encode(message: Message, version: int = OLDEST) -> bytes:
    """``message`` as bytes, for a peer that understands ``version``. It has at most `MAX_ROWS` rows."""
    match message:
        case Hello():
            return pack([_HELLO, *astuple(message)])
        case Calls(epoch, rows, traces):
            if rows and version >= _COLUMNS:
                return _call_columns(epoch, rows, traces)
            asked: Iterable[Field] = chain.from_iterable(rows)
            return pack([_CALLS, _HEAD, len(_CALL), epoch, *asked])
        case Answers(epoch, outcomes):
            if outcomes and version >= _COLUMNS and all(row[1] is None for row in outcomes):
                return _answer_columns(epoch, outcomes)
            return pack([_ANSWERS, _HEAD, len(_ANSWER), epoch, *chain.from_iterable(outcomes)])
        case Leaves(epoch, numbers):
            return pack([_LEAVES, _HEAD, len(_LEAVE), epoch, *numbers])


def decode(data: bytes) -> Message:
    """The message that ``data`` is. Raises `MessageInvalid`, and nothing else, if it is none."""
    received = unpack(data)
    kind = received[0] if received else None
    if type(kind) is not int or not _HELLO <= kind <= _ANSWER_COLUMNS:
        raise MessageInvalid(f"a message of a kind that this version does not know: {kind!r:.40}")
    if kind == _HELLO:
        return _record(Hello, received[1:])
    if kind == _CALL_COLUMNS:
        epoch, numbers, kinds, left, bodies = _columns(received, "QBI")
        rows = _timely(list(zip(numbers, kinds, left, bodies, strict=True)))
        return Calls(epoch, rows, _traces(received[_TRACES : cast("int", received[1])]))
    if kind == _ANSWER_COLUMNS:
        epoch, numbers, bodies = _columns(received, "Q")
        return Answers(epoch, list(zip(numbers, repeat(None), bodies, strict=False)))
    epoch = _epoch(received)
    if kind == _CALLS:
        return Calls(epoch, _timely(_rows(received, _CALL)))
    if kind == _ANSWERS:
        return Answers(epoch, _rows(received, _ANSWER))
    return Leaves(epoch, [number for (number,) in _rows(received, _LEAVE)])


def agreed_version(one: Hello, other: Hello) -> int:
    """The newest version that both understand. Raises `PeerIncompatible`."""
    newest = min(one.newest, other.newest)
    if newest < max(one.oldest, other.oldest):
        raise PeerIncompatible(
            f"{one.node} understands versions {one.oldest} to {one.newest} of the peers' protocol,"
            f" {other.node} {other.oldest} to {other.newest}: upgrade the older one"
        )
    return newest


def _call_columns(epoch: bytes, rows: Sequence[CallRow], traces: Sequence[tuple[int, bytes]]) -> bytes:
    numbers, kinds, left, bodies = zip(*rows, strict=True)
    columns = (_column("Q", numbers), _column("B", kinds), _column("I", left))
    if traces:
        traced, told = zip(*traces, strict=True)
        columns = (*columns, _column("Q", traced), *told)
    return pack([_CALL_COLUMNS, 3 + len(columns), epoch, *columns, *bodies])


def _traces(told: Sequence[Field]) -> Sequence[tuple[int, bytes]]:
    """The traces in ``told``, the fields between the columns and the bodies; a newer version may add more of them."""
    if not told:
        return ()
    numbers, *rest = told
    traces = rest[: len(numbers) // 8] if isinstance(numbers, bytes) else []
    if not isinstance(numbers, bytes) or len(numbers) != 8 * len(traces):
        raise MessageInvalid("traces of another number than there are calls with one")
    if not all(isinstance(trace, bytes) and len(trace) <= MAX_TRACE_BYTES for trace in traces):
        raise MessageInvalid(f"a trace that is not of at most {MAX_TRACE_BYTES} bytes")
    return tuple(zip(struct.unpack(f"!{len(traces)}Q", numbers), cast("list[bytes]", traces), strict=True))


def _answer_columns(epoch: bytes, rows: Sequence[AnswerRow]) -> bytes:
    numbers, _, bodies = zip(*rows, strict=True)
    return pack([_ANSWER_COLUMNS, 4, epoch, _column("Q", numbers), *bodies])


def _column(form: str, numbers: Sequence[int]) -> bytes:
    return struct.pack(f"!{len(numbers)}{form}", *numbers)


def _columns(received: list[Field], forms: str) -> list[Any]:
    """The epoch, a column of each of ``forms``, and the bodies, of which there are as many as each column has."""
    first = received[1] if len(received) > 1 else None
    if type(first) is not int or not 3 + len(forms) <= first <= len(received):
        raise MessageInvalid("a message that does not say where its bodies are")
    epoch, *packed = received[2 : 3 + len(forms)]
    bodies = received[first:]
    if type(epoch) is not bytes or not _BYTES.issuperset(map(type, packed + bodies)):
        raise MessageInvalid("a column or a body that is not bytes")
    try:
        columns = [
            struct.unpack(f"!{len(bodies)}{form}", cast("bytes", column))
            for form, column in zip(forms, packed, strict=True)
        ]
    except struct.error as error:
        raise MessageInvalid("a column of another length than there are bodies") from error
    return [epoch, *columns, bodies]


def _timely(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    left = [row[2] for row in rows]
    if left and not 0 <= min(left) <= max(left) <= MAX_TIMEOUT_S * _SECOND:
        raise MessageInvalid(f"a call whose time left is not of 0 to {MAX_TIMEOUT_S:g} seconds")
    return rows


def _epoch(received: list[Field]) -> bytes:
    epoch = received[3] if len(received) >= _HEAD else None
    if not isinstance(epoch, bytes):
        raise MessageInvalid("a message without an epoch")
    return epoch


def _rows(received: list[Field], columns: Sequence[_Column]) -> list[tuple[Any, ...]]:
    """The ``columns`` of every row, each of the types that its column allows."""
    first, stride = received[1], received[2]
    if type(first) is not int or type(stride) is not int or stride < 1 or not _HEAD <= first <= len(received):
        raise MessageInvalid("a message that does not say where its rows are")
    if (len(received) - first) % stride:
        raise MessageInvalid("a message whose last row is cut off")
    there = [received[first + place :: stride] for place in range(min(stride, len(columns)))]
    for column, values in zip(columns, there, strict=False):
        if not column.types.issuperset(map(type, values)):
            raise MessageInvalid("a row with a field of another type")
        if column.types is _WHOLE and min(cast("list[int]", values), default=0) < 0:
            raise MessageInvalid("a row with a number below 0")
    absent = [_default(column.default) for column in columns[stride:]]
    return list(zip(*there, *map(repeat, absent), strict=False))


def _record(kind: type[T], values: list[Field]) -> T:
    """A dataclass whose first fields are ``values``; those that are not there have their defaults."""
    hints = get_type_hints(kind)
    given: dict[str, object] = {}
    for place, field in enumerate(fields(cast("Any", kind))):
        value = values[place] if place < len(values) else _default(field.default)
        if type(value) not in (get_args(hints[field.name]) or (hints[field.name],)):
            raise MessageInvalid(f"a {kind.__name__.lower()} whose {field.name} is {value!r:.40}")
        given[field.name] = value
    return kind(**given)


def _default(default: object) -> object:
    if default is MISSING:
        raise MessageInvalid("a message that ends before all that it must say")
    return default
