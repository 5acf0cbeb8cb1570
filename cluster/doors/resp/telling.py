"""What SNAP.GET says of an open entry, put together from parts that many entries have in common. No I/O.

Only for a read that an open entry may answer without further thought, as a GET: then the state is FRESH and the
source this node's memory. The frame is the same as that of the `Reply` which `Node.try_read` would make.
"""

from cluster.doors.reads import Reads
from cluster.doors.resp.frames import RESP3, bulk, integer, milliseconds
from cluster.entries import Entry
from cluster.requests import Source, State
from cluster.snapshots import Snapshot

_HEADS = {
    (protocol, versioned): b"%b%d\r\n%b" % (mark, count + each * versioned, bulk("value"))
    for protocol, mark, count, each in ((2, b"*", 10, 2), (RESP3, b"%", 5, 1))
    for versioned in (False, True)
}
_REST = b"".join((bulk("state"), bulk(State.FRESH.value), bulk("source"), bulk(Source.LOCAL.value)))
_AS_OF, _AGE_MS, _VERSION = bulk("as_of"), bulk("age_ms"), bulk("version")


class Telling:
    """Frames of the entries of ``node``. The token of the last snapshot told is kept: it is that of most entries."""

    __slots__ = ("_as_of", "_incarnation", "_node", "_timeline", "_token")

    def __init__(self, node: Reads) -> None:
        self._node = node
        self._timeline = node.timeline
        self._as_of: Snapshot | None = None
        self._incarnation: int | None = None
        self._token = b""

    def frame(self, entry: Entry, now_s: float, protocol: int, null: bytes) -> bytes | None:
        """The reply at monotonic ``now_s``; None where the node does not know what its entries are true of."""
        timeline = self._timeline
        incarnation = timeline.incarnation
        if incarnation is None:
            return None
        as_of, as_of_s = timeline.as_of(entry)
        if as_of is not self._as_of or incarnation != self._incarnation:
            self._token = _AS_OF + bulk(self._node.token(as_of, incarnation)) + _AGE_MS
            self._as_of, self._incarnation = as_of, incarnation
        version = entry.version
        return b"".join(
            (
                _HEADS[protocol, version is not None],
                entry.frame or null,
                self._token,
                milliseconds(now_s - as_of_s),
                _REST,
                b"" if version is None else _VERSION + integer(version),
            )
        )
