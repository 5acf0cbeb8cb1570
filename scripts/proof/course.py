"""One line on which everything that happened has its place: incarnations in order, in each the chain of snapshots.

Pure. A place is a number: a snapshot with a greater one sees more, or belongs to a later incarnation.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Final

from cluster.snapshots import Snapshot
from scripts.proof.chain import Step, chain
from scripts.proof.history import Era, History, Write

NOWHERE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The part of the course that is one incarnation: the step at index n is at place ``start`` + n."""

    era: Era
    start: int
    steps: list[Step]
    certain: Mapping[int, Write]
    ambiguous: list[Write]


class Course:
    """The places of ``named``, the snapshots that replies and reads named in each incarnation.

    Of two transactions with one xid in one incarnation there is no telling: the caller has none.
    """

    def __init__(self, history: History, named: Mapping[int, Iterable[Snapshot]]) -> None:
        self.stretches: list[Stretch] = []
        self._places: dict[tuple[int, Snapshot], int] = {}
        writes: list[tuple[int, Write]] = []
        start = 0
        for era in history.eras:
            stretch = _stretch(history, era, start, named.get(era.incarnation, ()))
            self.stretches.append(stretch)
            start += len(stretch.steps) + 1  # one place for what no named snapshot sees
            writes += self._enter(stretch)
        self._index(writes)

    def place(self, incarnation: int, snapshot: Snapshot) -> int:
        """Where ``snapshot`` is; `NOWHERE` if it is none of that incarnation's."""
        return self._places.get((incarnation, snapshot), NOWHERE)

    def needed(self, since_s: float) -> int:
        """From which place on everything is seen whose commit was acknowledged before ``since_s``."""
        at = bisect_left(self._acked_s, since_s)
        return self._acked_until[at - 1] if at else 0

    def unseen_since_s(self, place: int) -> float:
        """When the first commit was acknowledged that is not seen at ``place``; infinity if none was."""
        return self._oldest_beyond[bisect_left(self._visible_at, place + 1)]

    def begun_s(self, place: int) -> float:
        """When the last commit was sent of those seen at ``place``: no snapshot there is older."""
        at = bisect_left(self._visible_at, place + 1)
        return self._newest_until[at - 1] if at else -inf

    def _enter(self, stretch: Stretch) -> Iterable[tuple[int, Write]]:
        visible_at: dict[int, int] = {}
        for place, step in enumerate(stretch.steps, stretch.start):
            visible_at.update(dict.fromkeys(step.newly, place))
            for snapshot in step.snapshots:
                self._places[stretch.era.incarnation, snapshot] = place
        never = stretch.start + len(stretch.steps)
        return [(visible_at.get(xid, never), write) for xid, write in stretch.certain.items()]

    def _index(self, writes: list[tuple[int, Write]]) -> None:
        acked = sorted((write.acked_s, place) for place, write in writes if write.acked_s is not None)
        self._acked_s = [acked_s for acked_s, _ in acked]
        self._acked_until = list(accumulate((place for _, place in acked), max))
        writes.sort(key=lambda placed: placed[0])
        self._visible_at = [place for place, _ in writes]
        self._newest_until = list(accumulate((write.sent_s for _, write in writes), max))
        times = (inf if write.acked_s is None else write.acked_s for _, write in reversed(writes))
        self._oldest_beyond = [*accumulate(times, min, initial=inf)][::-1]


def _stretch(history: History, era: Era, start: int, named: Iterable[Snapshot]) -> Stretch:
    during = history.during(era)
    certain = {write.xid: write for write in during if not write.ambiguous}
    return Stretch(
        era=era,
        start=start,
        steps=chain(named, certain).steps,
        certain=certain,
        ambiguous=[write for write in during if write.ambiguous],
    )
