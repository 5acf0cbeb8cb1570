"""The ring: for each of the 16,384 slots its owner and its backup. Pure.

Guaranteed, for any members:

* A ring is a function of the set of its members: neither of their order nor of what was before.
* Nobody owns more than `allowance` times its share, which is in proportion to the weights.
* The backup is another member than the owner, of another zone if there is one.

Each slot goes to the first member of its order (see `peers.preferences`) that has room: consistent hashing with
bounded loads (Mirrokni, Thorup & Zadimoghaddam, SODA 2018). Room goes to who has it as an earlier wish, then to
the lower slot, so that a refused slot puts no other out. Members that are numbered without large gaps need no
bound, and nothing moves but what a newcomer gets or a leaver had.

The backup is whom the slot prefers next, who will own it when the owner leaves; zones and room can make it
another.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from math import sqrt
from typing import Final, Self

from peers.members import Member
from peers.preferences import Preferences
from snapring.keys import SLOTS

CHOICES: Final = 4
"""Among how many that may be a slot's backup one with room is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Ring:
    """Immutable. ``members`` are in order; ``hash`` is 8 bytes, equal only for the same members and tables."""

    members: tuple[Member, ...]
    owners: tuple[str, ...]
    backups: tuple[str | None, ...]
    hash: bytes
    _slots: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, members: Iterable[Member]) -> Self:
        """The ring of ``members``, at least one, each of another name; else `ValueError`.

        Takes about 0.1 s of the processor for 20 numbered members: keep it off the event loop.
        """
        ordered = tuple(sorted(members))
        names = [member.name for member in ordered]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"members of a ring must be there and differ in name: {', '.join(names)}")
        preferences = Preferences(ordered)
        owners = _owners(ordered, preferences)
        backups = _backups(ordered, preferences, owners)
        slots: dict[str, list[int]] = {name: [] for name in names}
        for slot, owner in enumerate(owners):
            slots[names[owner]].append(slot)
        return cls(
            members=ordered,
            owners=tuple(names[owner] for owner in owners),
            backups=tuple(None if backup is None else names[backup] for backup in backups),
            hash=_hash(ordered, owners, backups),
            _slots={name: tuple(owned) for name, owned in slots.items()},
        )

    def __repr__(self) -> str:
        return f"<Ring {self.hash.hex()} of {len(self.members)}>"

    def owner(self, slot: int) -> str:
        """The name of the member that owns ``slot``."""
        return self.owners[slot]

    def backup(self, slot: int) -> str | None:
        """The name of the member that keeps copies of what is in ``slot``; None where there is one member."""
        return self.backups[slot]

    def slots(self, name: str) -> Sequence[int]:
        """The slots that ``name`` owns, ascending. Raises `KeyError` for who is no member."""
        return self._slots[name]


def allowance(members: int) -> float:
    """How many times its share a member may own: 1.05 up to 25 members, 1.10 at 100.

    Shares get smaller and chance weighs more: a constant bound would move ever more slots.
    """
    return max(1.05, 1 + 0.01 * sqrt(members))


def _rooms(members: Sequence[Member]) -> list[int]:
    """How many slots each may have, together at least all of them."""
    share = allowance(len(members)) * SLOTS / sum(member.weight for member in members)
    return [int(share * member.weight) for member in members]


def _owners(members: Sequence[Member], preferences: Preferences) -> list[int]:
    rooms = _rooms(members)
    owners = [0] * SLOTS
    wishes = [preferences.of(slot) for slot in range(SLOTS)]
    waiting: Sequence[int] = range(SLOTS)
    while waiting:
        refused = []
        for slot in waiting:
            owners[slot] = wanted = next(wishes[slot])
            if rooms[wanted]:
                rooms[wanted] -= 1
            else:
                refused.append(slot)
        waiting = refused
    return owners


def _backups(members: Sequence[Member], preferences: Preferences, owners: Sequence[int]) -> list[int | None]:
    if len(members) == 1:
        return [None] * SLOTS
    zones = [member.zone for member in members]
    # Where there is one zone, each member is as good as a zone of its own.
    domains: Sequence[str | int] = zones if len(set(zones)) > 1 else range(len(members))
    choices = {domain: min(CHOICES, sum(other != domain for other in domains)) for domain in domains}
    rooms = _rooms(members)
    backups: list[int | None] = []
    for slot, owner in enumerate(owners):
        away = (member for member in preferences.of(slot) if domains[member] != domains[owner])
        backup = _first_with_room(islice(away, choices[domains[owner]]), rooms)
        rooms[backup] -= 1
        backups.append(backup)
    return backups


def _first_with_room(candidates: Iterator[int], rooms: Sequence[int]) -> int:
    """The first of ``candidates``, at least one, that has room; the first of all where none has."""
    first = next(candidates)
    return next((member for member in chain([first], candidates) if rooms[member] > 0), first)


def _hash(members: Sequence[Member], owners: Sequence[int], backups: Sequence[int | None]) -> bytes:
    who = [(member.name, member.zone, member.weight) for member in members]
    return blake2b(repr((who, owners, backups)).encode(), digest_size=8).digest()
