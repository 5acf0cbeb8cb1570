"""Get out of memory, from bytes to bytes: nearly every call is one, and gRPC itself leaves little time to add.

A request for nothing but a short key is ``0A <size> <key>``, and the parts of a message may be joined in any order
(protobuf, "Encoding": merging): so what is the same in every reply until the watermark moves is written once.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from cluster.doors.grpc.messages import milliseconds
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.reads import Reads
from cluster.entries import Entry
from cluster.snapshots import Snapshot

_KEY: Final = b"\x0a"
_VALUE: Final = b"\x0a"
_AGE_MS: Final = b"\x18"
_VERSION: Final = b"\x30"
_MAX_SHORT: Final = 127
"""The size of a longer key takes two bytes."""


class Dated(Protocol):
    """How far a node has followed the database, and what that says about an entry."""

    @property
    def incarnation(self) -> int | None:
        """That of the watermark."""

    def as_of(self, entry: Entry) -> tuple[Snapshot, float]:
        """The newest snapshot at which ``entry`` is known true, and when that was surely current."""


class Memory(Protocol):
    """A node's own memory."""

    @property
    def timeline(self) -> Dated:
        """The node's."""

    def hit(self, key: bytes) -> Entry | None:
        """The entry under a canonical text if a plain read may be answered without further thought; it is counted."""


class Hits:
    """Replies out of ``memory``, with the tokens of ``node``, to ``visitor``'s requests."""

    def __init__(
        self, node: Reads, memory: Memory, visitor: Visitor, clock: Callable[[], float] = monotonic
    ) -> None:
        self._node = node
        self._timeline = memory.timeline
        self._hit = visitor.finder(memory.hit)
        self._clock = clock
        self._as_of: Snapshot | None = None
        self._incarnation: int | None = None
        self._common = b""

    def answer(self, request: bytes) -> bytes | None:
        """The reply to a GetRequest, both as bytes; None if that takes more than a look into memory."""
        size = len(request) - 2
        if not 0 < size <= _MAX_SHORT or request[1] != size or request[:1] != _KEY:
            return None
        return self.reply(request[2:])

    def reply(self, key: bytes) -> bytes | None:
        """The GetReply to a plain read of ``key``, as bytes; None if that takes more than a look into memory."""
        entry = self._hit(key)
        incarnation = self._timeline.incarnation
        if entry is None or incarnation is None:
            return None
        as_of, as_of_s = self._timeline.as_of(entry)
        if as_of is not self._as_of or incarnation != self._incarnation:
            self._write_common(as_of, incarnation)
        age_ms = milliseconds(self._clock() - as_of_s)
        parts = [self._common, _AGE_MS, varint(age_ms << 1 if age_ms >= 0 else 1)]
        if entry.version is not None:
            parts += (_VERSION, varint(entry.version))
        value = entry.value
        if value is not None:
            parts += (_VALUE, varint(len(value)), value)
        return b"".join(parts)

    def _write_common(self, as_of: Snapshot, incarnation: int) -> None:
        reply = v1.GetReply(
            as_of=self._node.token(as_of, incarnation), state=v1.STATE_FRESH, source=v1.SOURCE_LOCAL
        )
        self._as_of, self._incarnation = as_of, incarnation
        self._common = reply.SerializeToString()


def varint(number: int) -> bytes:
    """``number``, which is not negative, as protobuf writes it."""
    if number <= _MAX_SHORT:
        return bytes((number,))
    out = bytearray()
    while number > _MAX_SHORT:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
