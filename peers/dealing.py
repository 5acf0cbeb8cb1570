"""The slots dealt to numbered nodes: for each slot the order in which they are to own it. Pure.

Nodes join the table one after the other, in the order of their numbers. A newcomer becomes first in an
equal part of the slots of everybody there, second in an equal part of the rest, and so on; among themselves those
who were there keep their order. So each slot has one fixed order, of which a smaller table knows the
beginning, and:

* whoever leaves, only the slots that were its own change hands: no order can do with fewer;
* at a table without gaps nodes differ by one slot at most, whatever its size;
* those who are second to a node are all second to it about equally often, so a gap spreads evenly too.

Plain consistent hashing has the first of these alone: its nodes differ by chance, by a few per cent at
20 nodes, and bounding that moves slots again. That the names are numbered is what makes the difference.
"""

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from typing import Final

from snapring.keys import SLOTS

PLACES: Final = 6
"""How much of a slot's order is dealt: enough for five nodes to be gone at once."""


def deal(players: int) -> list[list[int]]:
    """For each slot the first `PLACES` of the nodes 0 to ``players - 1``, in the order to own it.

    The same on every machine and in every version of Python.
    """
    orders = [[0] for _ in range(SLOTS)]
    hands = [list(shuffled())]
    owed = [0] * PLACES
    for newcomer in range(1, players):
        share, spare = divmod(SLOTS, newcomer + 1)
        own: list[int] = []
        for hand in hands:
            due = len(hand) - share
            if due and spare:
                due -= 1
                spare -= 1
            own += _place(orders, newcomer, 0, _drawn(hand, due, newcomer))
            _follow(orders, newcomer, hand, owed)
        hands.append(own)
    return orders


@cache
def shuffled() -> Sequence[int]:
    """Every slot, in an order without a pattern: neighbouring keys may well be in slots of a pattern."""
    return sorted(range(SLOTS), key=lambda slot: blake2b(b"%d" % slot, digest_size=8).digest())


def _follow(orders: list[list[int]], newcomer: int, hand: list[int], owed: list[int]) -> None:
    """Make the newcomer second in its part of ``hand``, third in its part of the rest, and so on.

    A hand is in the order of who is second, so that what is drawn from it is drawn from each of them alike: the
    newcomer, whose number is the highest, comes last. ``owed`` carries the fractions to the next hand.
    """
    rest, seconds = hand, []
    for place in range(1, min(PLACES, newcomer + 1)):
        count, owed[place] = divmod(owed[place] + len(rest), newcomer + 1 - place)
        drawn = _place(orders, newcomer, place, _drawn(rest, count, newcomer)) if count else []
        if place == 1:
            rest, seconds = hand[:], drawn
    hand += seconds


def _drawn(slots: list[int], count: int, newcomer: int) -> list[int]:
    """Take ``count`` out of ``slots``, evenly spaced from a place on that nothing else depends on."""
    size = len(slots)
    if not count:
        return []
    phase = (slots[count % size] + newcomer) % size
    positions = [(nth * size + phase) // count for nth in range(count)]
    drawn = [slots[position] for position in positions]
    for position in reversed(positions):
        del slots[position]
    return drawn


def _place(orders: list[list[int]], newcomer: int, place: int, slots: list[int]) -> list[int]:
    for slot in slots:
        order = orders[slot]
        order.insert(place, newcomer)
        del order[PLACES:]
    return slots
