"""Failing schedules made short: delta debugging (Zeller & Hildebrandt, TSE 2002) over the list of steps.

Any sublist of a schedule is one, so steps are left out while it still fails, first many at a time; then
what is left is made plain: fewer names, the usual settings.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from scripts.simulation.messages import Limits
from scripts.simulation.schedule import Failure, replay
from scripts.simulation.world import Step

_PLAINER: Final = (("T2", "T1"), ("T3", "T1"), ("T3", "T2"), ("b", "a"), ("all", "a"), ("anything", "bulk"))
_UNASKED: Final = {"serve": "load", "arrive": "land"}
"""A load that nobody waits for does as well as one that somebody waits for, if nothing more is needed."""
_WAIT: Final[Step] = ("wait", 5)


def shrink(failure: Failure) -> Failure:
    """A failure that no leaving out of one or two steps, and no plainer name, makes any smaller."""
    while (smaller := _smaller(failure)) is not None:
        failure = smaller
    return failure


def _smaller(failure: Failure) -> Failure | None:
    for limits, steps in _simpler(failure.limits, failure.steps):
        found = replay(limits, steps)
        if found is not None and _size(found) < _size(failure):
            return found
    return None


def _size(failure: Failure) -> tuple[int, bool, int, list[str]]:
    served = sum(step[0] in _UNASKED for step in failure.steps)
    return len(failure.steps), failure.limits != Limits(), served, list(map(repr, failure.steps))


def _simpler(limits: Limits, steps: tuple[Step, ...]) -> Iterator[tuple[Limits, tuple[Step, ...]]]:
    """What may fail too, the boldest first."""
    yield Limits(), steps
    size = len(steps) // 2
    while size:
        for start in range(len(steps) - size, -1, -size):
            before, after = steps[:start], steps[start + size :]
            yield limits, before + after
            if size > 1:  # time also passes by commits, each of which may need company
                yield limits, (*before, _WAIT, *after)
        size //= 2
    for one, other in combinations(range(len(steps)), 2):
        yield limits, steps[:one] + steps[one + 1 : other] + steps[other + 1 :]
    yield limits, tuple((_UNASKED.get(str(verb), verb), *words) for verb, *words in steps)
    for name, plainer in _PLAINER:
        yield limits, tuple(tuple(plainer if word == name else word for word in step) for step in steps)
