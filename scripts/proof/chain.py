"""The order of one incarnation's snapshots, by what each sees of the transactions known to have committed. Pure.

Snapshots that Postgres took form a chain: of two, one sees all that the other sees. What a node names as a
snapshot need not be one of those, and where it does not fit into the chain, it is none.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cluster.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Step:
    """Snapshots that see the same; ``newly``: the transactions that those of the step before do not see."""

    snapshots: list[Snapshot]
    newly: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps in order, and the snapshots that fit nowhere."""

    steps: list[Step]
    misfits: list[Snapshot]


def chain(snapshots: Iterable[Snapshot], committed: Collection[int]) -> Chain:
    """Put ``snapshots`` in order. One that contradicts those with fewer transactions is a misfit."""
    xids, known = sorted(committed), frozenset(committed)

    def count(snapshot: Snapshot) -> int:
        return bisect_left(xids, snapshot.xmax) - sum(xid in known for xid in snapshot.xip)

    ordered = sorted((count(snapshot), snapshot.xmax, str(snapshot), snapshot) for snapshot in set(snapshots))
    found = Chain([], [])
    unseen: list[int] = []
    seen = entered = 0
    for visible, xmax, _, snapshot in ordered:
        while entered < len(xids) and xids[entered] < xmax:
            unseen.append(xids[entered])
            entered += 1
        running = frozenset(snapshot.xip)
        newly = tuple(xid for xid in unseen if xid < xmax and xid not in running)
        if seen + len(newly) != visible:
            found.misfits.append(snapshot)
        elif newly or not found.steps:
            found.steps.append(Step([snapshot], newly))
            seen, unseen = visible, [xid for xid in unseen if xid >= xmax or xid in running]
        else:
            found.steps[-1].snapshots.append(snapshot)
    return found
