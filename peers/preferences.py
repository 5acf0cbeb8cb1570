"""In which order the members of a cluster are to own a slot. Pure.

The order of a slot does not change when members come and go, except that these enter or leave it: so nothing
moves that need not move. It is dealt (see `peers.dealing`) where the names are the numbered ones that a
StatefulSet gives and the weights are equal. Otherwise, and where everyone that was dealt a slot is gone,
it is the order in which a walk round a consistent-hash ring meets the members (uhashring), whose points
are in proportion to the weights.
"""

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from typing import Final

from uhashring import HashRing

from peers.dealing import deal, shuffled
from peers.members import Member
from snapring.keys import SLOTS

MAX_NUMBER: Final = 1_023
"""Names with a higher number are not dealt to: whoever is missing below it costs time as if it were there."""
POINTS: Final = 1_024
"""Points on the ring for each unit of weight. Fewer balance less, more take longer: 1 us each."""

_NUMBERED: Final = re.compile(r"(.*\D)?(0|[1-9][0-9]*)", re.DOTALL)
_CIRCLE: Final = 2**56


class Preferences:
    """The orders of all slots over ``members``, of which each is called by its place among them.

    ``members`` come in an order of their own, the same on every node.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._dealt = _dealt(members)

    def of(self, slot: int) -> Iterator[int]:
        """Every member once, first the one that is to own ``slot``."""
        first = self._dealt[slot] if self._dealt else ()
        yield from first
        for member in self._met(slot):
            if member not in first:
                yield member

    def _met(self, slot: int) -> Iterator[int]:
        """Every member once, as a walk round the ring from ``slot`` meets them."""
        points, owners = self._ring
        start = bisect(points, self._starts[slot])
        met: set[int] = set()
        for place in chain(range(start, len(owners)), range(start)):
            member = owners[place]
            if member not in met:
                yield member
                met.add(member)
                if len(met) == len(self._members):
                    return

    @cached_property
    def _starts(self) -> Sequence[int]:
        """Where on the ring each slot is: all at one distance, in an order without a pattern."""
        starts = [0] * SLOTS
        for place, slot in enumerate(shuffled()):
            starts[slot] = place * (_CIRCLE // SLOTS)
        return starts

    @cached_property
    def _ring(self) -> tuple[Sequence[int], Sequence[int]]:
        """The points of the ring, ascending, and whose they are."""
        places = {member.name: place for place, member in enumerate(self._members)}
        weights = {member.name: member.weight for member in self._members}
        points = HashRing(weights, vnodes=POINTS, hash_fn=_point).get_points()
        return [point for point, _ in points], [places[name] for _, name in points]


def _dealt(members: Sequence[Member]) -> Sequence[Sequence[int]] | None:
    """What `deal` gives each slot, without those who are not there; None where it is not for such members."""
    matches = [_NUMBERED.fullmatch(member.name) for member in members]
    numbered = [(match[1], int(match[2])) for match in matches if match]
    alike = {base for base, _ in numbered}, {member.weight for member in members}
    if len(numbered) < len(members) or any(len(values) > 1 for values in alike):
        return None
    places = {number: place for place, (_, number) in enumerate(numbered)}
    if max(places) > MAX_NUMBER:
        return None
    return [[places[number] for number in order if number in places] for order in deal(max(places) + 1)]


def _point(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest())
