"""What one client is told out of open entries: GET, a run of GETs, SNAP.GET. Nothing is parsed, and nobody waits.

Only for a client that has nothing under way, while the node's entries are fresh: see `Connection.hear`.
"""

from collections.abc import Callable, Sequence

from cluster.access.gate import Caller
from cluster.doors.reads import Late, Reads
from cluster.doors.resp.admission import finder
from cluster.doors.resp.commands import Session
from cluster.doors.resp.shapes import (
    GET_BYTES,
    GETS,
    LOWER_GET,
    MAX_GET_BYTES,
    MAX_SNAP_GET_BYTES,
    MAX_TAIL_BYTES,
    SNAP_GETS,
    TAILS,
    UPPER_GET,
)
from cluster.doors.resp.telling import Telling
from cluster.entries import Entry
from cluster.memory.policy import MAX_FREQUENCY
from cluster.memory.tallies import Tally


class Hits:
    """Answers of the memory of ``node`` to the client of ``session``, whose keys are `meet`'s caller's if it has one.

    A run is answered together if its replies are no more than ``max_bytes``.
    """

    __slots__ = ("_find", "_forward", "_index", "_max_bytes", "_session", "_telling")

    def __init__(self, node: Reads, session: Session, max_bytes: int) -> None:
        self._index = node.store.index
        self._session = session
        self._max_bytes = max_bytes
        self._telling = Telling(node)
        self._find: Callable[[bytes], Entry | None] = self._index.get
        self._forward: Callable[[bytes], Late | None] = node.forward

    def meet(self, caller: Caller) -> None:
        """The client is ``caller`` from here on.

        What another node has is then asked for by a command, where somebody's right to it is looked at.
        """
        self._find = finder(caller, self._index.get)
        self._forward = lambda _: None

    def one(self, data: bytes, now: float) -> bytes | None:
        """The reply to ``data``, if that is one GET or one SNAP.GET without options; empty if its entry is not open."""
        size = len(data)
        if size <= MAX_GET_BYTES:
            upper, lower, at = GETS[size]
            head = data[:at]
            if head == upper or head == lower:  # noqa: PLR1714, SIM109  # this is faster
                entry = self._find(data[at:-2])
                if entry is None or entry.until_s <= now:
                    return b""
                if entry.frequency < MAX_FREQUENCY:
                    entry.frequency += 1
                entry.tally.door_hits += 1
                return entry.frame or self._session.null
        return self._told(data, size, now) if size <= MAX_SNAP_GET_BYTES else None

    def elsewhere(self, data: bytes) -> Late | None:
        """The value that another node has for ``data``, if that is one GET of a key that is not here."""
        size = len(data)
        if size > MAX_GET_BYTES or self._session.own is not None:
            return None
        upper, lower, at = GETS[size]
        if data[:at] not in (upper, lower) or data[at:-2] in self._index:
            return None
        return self._forward(data[at:-2])

    def run(self, data: bytes, now: float) -> tuple[bytes, bytes]:  # noqa: C901  # a call for each GET would cost more than the rest
        """The replies to the GETs that ``data`` begins with, as long as they are hits; and the rest of it.

        The text between two heads is a whole GET if it has the length that it announces and its key is one
        that is here, since no key here contains a head.
        """
        head = data[:GET_BYTES]
        if head not in (UPPER_GET, LOWER_GET):
            return b"", data
        find, null = self._find, self._session.null
        out: list[bytes] = []
        runs: list[tuple[int, Tally]] = []  # from which reply on they are whose hits
        tally = None
        gets = data.split(head)
        del gets[0]
        size = -1
        for get in gets:
            if len(get) != size:
                size = len(get)
                if size > MAX_TAIL_BYTES:
                    break
                announced, at = TAILS[size]
            if get[:at] != announced:
                break
            entry = find(get[at:-2])
            if entry is None or entry.until_s <= now:
                break
            if entry.frequency < MAX_FREQUENCY:
                entry.frequency += 1
            if entry.tally is not tally:
                tally = entry.tally
                runs.append((len(out), tally))
            out.append(entry.frame or null)
        if sum(map(len, out)) > self._max_bytes:
            return b"", data
        _count(runs, len(out))
        if len(out) == len(gets):
            return b"".join(out), b""
        return b"".join(out), data[len(out) * len(head) + sum(map(len, gets[: len(out)])) :]

    def _told(self, data: bytes, size: int, now: float) -> bytes | None:
        announced, at = SNAP_GETS[size]
        if data[:at] != announced:
            return None
        session, entry = self._session, self._find(data[at:-2])
        if entry is None or entry.until_s <= now:
            return b""
        frame = self._telling.frame(entry, now, session.protocol, session.null)
        if frame is None:
            return b""
        if entry.frequency < MAX_FREQUENCY:
            entry.frequency += 1
        entry.tally.door_hits += 1
        return frame


def _count(runs: Sequence[tuple[int, Tally]], hits: int) -> None:
    """``hits`` of one run of commands: each of ``runs`` says from which on they are of which cache."""
    for since, tally in reversed(runs):
        tally.door_hits += hits - since
        hits = since
