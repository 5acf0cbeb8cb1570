"""Judges replies: is each value what the database held at the snapshot the reply names? Pure.

A batch is judged only against a journal read after its last reply arrived. An honest ``as_of`` is then
within that journal; one that is not, or that no token of this database can name, is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import msgpack

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.demonstration.truth import Truth
from scripts.demonstration.workload import Read
from snapring.errors import SnapringError


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One reply as a reader got it. ``received_s`` is Unix time; ``age_s`` is what the reply claims."""

    read: Read
    value: bytes | None
    as_of: str
    age_s: float
    received_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """``fault`` is None for a right reply, else what is wrong. ``staleness_s`` as seen from outside."""

    fault: str | None
    staleness_s: float


class Checker:
    """Knows the truth and the secret that tokens are signed with; judges batches.

    ``timed`` says whether the journal has commit times: staleness is then the time from the first
    commit that the reply does not see to the reply's arrival, otherwise the age the reply claims.
    """

    def __init__(self, truth: Truth, codec: TokenCodec, incarnation: int, *, scale: int, timed: bool) -> None:
        self._truth = truth
        self._codec = codec
        self._incarnation = incarnation
        self._scale = scale
        self._timed = timed

    def judge(self, batch: Iterable[Observation]) -> list[Verdict]:
        """A verdict on each observation, in order."""
        snapshots: dict[str, Snapshot | str] = {}
        known: dict[tuple[Read, str], tuple[object, float]] = {}
        verdicts = []
        for seen in batch:
            snapshot = snapshots.get(seen.as_of)
            if snapshot is None:
                snapshot = snapshots[seen.as_of] = self._snapshot(seen.as_of)
            if isinstance(snapshot, str):
                verdicts.append(Verdict(f"{seen.read.key.decode()}: {snapshot}", inf))
                continue
            question = (seen.read, seen.as_of)
            if question not in known:
                known[question] = self._answer(seen.read, snapshot)
            verdicts.append(self._verdict(seen, snapshot, *known[question]))
        return verdicts

    def _snapshot(self, token: str) -> Snapshot | str:
        """The snapshot that ``token`` names, or why it names none that can be believed."""
        try:
            position = self._codec.decode(token, self._incarnation)
        except SnapringError as error:
            return f"as_of is no token of this database: {error}"
        if not isinstance(position, Snapshot):
            return f"as_of is no snapshot: {position}"
        if not position.within(self._truth.complete_to):
            return f"as_of {position} is ahead of the database at {self._truth.complete_to}"
        return position

    def _answer(self, read: Read, at: Snapshot) -> tuple[object, float]:
        expected = read.cache.expected(self._truth, read.argument, self._scale, at)
        if not self._timed:
            return expected, inf
        return expected, self._truth.first_unseen_s(read.cache.rows(read.argument, self._scale), at)

    def _verdict(self, seen: Observation, at: Snapshot, expected: object, first_unseen_s: float) -> Verdict:
        staleness_s = max(0.0, seen.received_s - first_unseen_s) if self._timed else seen.age_s
        found = _decoded(seen.value)
        if found == expected:
            return Verdict(None, staleness_s)
        key = seen.read.key.decode()
        fault = f"{key}: the node said {found!r}, at snapshot {at} the database held {expected!r}"
        return Verdict(fault, staleness_s)


def _decoded(value: bytes | None) -> object:
    if value is None:
        return None
    try:
        return msgpack.unpackb(value)
    except ValueError as error:
        return f"no msgpack ({error})"
