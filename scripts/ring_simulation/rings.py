"""What becomes of slots and keys in rings of so many nodes, when one joins and when one leaves."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Final

from peers.members import Member
from peers.ring import Ring
from snapring.keys import SLOTS, slot_of

KEYS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One size of ring.

    Balances are the most slots of one node against the mean. What moved is against what a node of the fair
    size would have to get or give; for leavers the mean and the worst of those tried. ``next_owner``: of a
    leaver's slots, the share that the backup owns afterwards. ``build_s`` is processor time.
    """

    nodes: int
    balance: float
    backup_balance: float
    balance_after_leave: float
    moved_on_join: float
    moved_on_leave: float
    moved_on_leave_worst: float
    keys_moved_on_join: float
    keys_moved_ideally: float
    next_owner: float
    build_s: float


def cast(names: str, zones: int) -> Callable[[int], Member]:
    """The member of each number; ``names`` as a StatefulSet gives them, "numbered", or "arbitrary"."""

    def member(number: int) -> Member:
        name = f"snapring-{number}" if names == "numbered" else blake2b(b"%d" % number).hexdigest()[:8] + "x"
        return Member(name=name, zone=f"zone-{number % zones}" if zones > 1 else "")

    return member


def measure(member: Callable[[int], Member], nodes: int, leavers: int) -> Measured:
    """Build the ring of ``nodes``, the next larger one, and those without each of some ``leavers``."""
    members = [member(number) for number in range(nodes + 1)]
    ring, build_s = _built(members[:nodes])
    joined, _ = _built(members)
    taken = _moved(ring, joined)
    leaving = [number * (nodes - 1) // max(1, leavers - 1) for number in range(leavers)]
    left = {number: _built(members[:number] + members[number + 1 : nodes])[0] for number in set(leaving)}
    moves = [len(_moved(ring, after)) * nodes / SLOTS for after in left.values()]
    return Measured(
        nodes=nodes,
        balance=_balance(ring.owners, nodes),
        backup_balance=_balance(ring.backups, nodes),
        balance_after_leave=max(_balance(after.owners, nodes - 1) for after in left.values()),
        moved_on_join=len(taken) * (nodes + 1) / SLOTS,
        moved_on_leave=sum(moves) / len(moves),
        moved_on_leave_worst=max(moves),
        keys_moved_on_join=sum(keys_in_slots()[slot] for slot in taken) / KEYS,
        keys_moved_ideally=1 / (nodes + 1),
        next_owner=_next_owner(ring, {members[number].name: after for number, after in left.items()}),
        build_s=build_s,
    )


@cache
def keys_in_slots() -> Counter[int]:
    """How many of the keys of a cache are in each slot."""
    return Counter(slot_of(b"user_by_id:%d" % number) for number in range(KEYS))


def _built(members: Sequence[Member]) -> tuple[Ring, float]:
    began_s = time.process_time()
    return Ring.of(members), time.process_time() - began_s


def _balance(holders: Iterable[str | None], nodes: int) -> float:
    return max(Counter(holders).values()) * nodes / SLOTS


def _moved(before: Ring, after: Ring) -> list[int]:
    return [slot for slot in range(SLOTS) if before.owner(slot) != after.owner(slot)]


def _next_owner(ring: Ring, left: Mapping[str, Ring]) -> float:
    became = [
        after.owner(slot) == ring.backup(slot) for name, after in left.items() for slot in ring.slots(name)
    ]
    return sum(became) / len(became)
