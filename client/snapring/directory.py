"""Whom to ask next. Pure: clock and randomness are given.

A node that could not be reached rests, for longer each time; meanwhile others are asked. Where all of them rest,
the one whose rest ends first is asked all the same: a client of one node never refuses by itself.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import count
from random import Random
from typing import Final

from snapring.keys import slot_of
from snapring.routes import Address, Routes, known

FIRST_REST_S: Final = 0.1
LONGEST_REST_S: Final = 5.0
LOOK_PERIOD_S: Final = 10.0
"""How often the owners of slots are asked for."""

LOOK_SOON_S: Final = 1.0
"""The same after a node could not be reached: it may have gone."""


class Directory:
    """The nodes that a client knows."""

    def __init__(
        self, seeds: Sequence[Address], *, routed: bool, clock: Callable[[], float], random: Random
    ) -> None:
        self._seeds = tuple(seeds)
        self._clock = clock
        self._random = random
        self._routes: Routes | None = None
        self._nodes = tuple(known(None, seeds))
        self._rests: dict[Address, tuple[float, int]] = {}
        self._turns = count(random.randrange(len(self._nodes)))
        self._look_s = clock() if routed else float("inf")

    def __repr__(self) -> str:
        return f"<Directory nodes={len(self._nodes)} resting={len(self._rests)} routed={self._routes is not None}>"

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self._nodes)

    @property
    def everybody(self) -> tuple[Address, ...]:
        """The nodes that own slots or stand in for owners; where they do not tell, the seeds."""
        return tuple(known(self._routes, ())) if self._routes else self._seeds

    def due(self) -> bool:
        """Whether the caller should ask for the owners of slots now; nobody else is told to, for a while."""
        now_s = self._clock()
        if now_s < self._look_s:
            return False
        self._look_s = now_s + LOOK_PERIOD_S
        return True

    def adopt(self, routes: Routes | None) -> None:
        """Follow ``routes``; None where the nodes do not tell."""
        self._routes = routes
        self._nodes = nodes = tuple(known(routes, self._seeds))
        self._rests = {node: rest for node, rest in self._rests.items() if node in nodes}

    def pick(self, key: str | None, tried: Collection[Address] = ()) -> Address:
        """The node to ask for ``key``, better none of those ``tried``."""
        if key is not None and (owner := self._owner(key, tried)) is not None:
            return owner
        turn, nodes = next(self._turns), self._nodes
        order = [nodes[(turn + n) % len(nodes)] for n in range(len(nodes))]
        fresh = [address for address in order if address not in tried] or order
        return next((each for each in fresh if not self._resting(each)), None) or min(fresh, key=self._rest_s)

    def apart(self, keys: Sequence[str]) -> list[list[str]]:
        """``keys`` by the node to ask for them; all together where nodes do not tell."""
        if self._routes is None:
            return [list(keys)]
        parts: dict[Address | None, list[str]] = {}
        for key in keys:
            parts.setdefault(self._owner(key), []).append(key)
        return list(parts.values())

    def failed(self, address: Address) -> None:
        """``address`` could not be reached, or broke off."""
        now_s = self._clock()
        _, failures = self._rests.get(address, (0.0, 0))
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0**failures) * self._random.uniform(0.5, 1.0)
        self._rests[address] = (now_s + rest_s, min(failures + 1, 10))
        self._look_s = min(self._look_s, now_s + LOOK_SOON_S)

    def answered(self, address: Address) -> None:
        """``address`` answered."""
        if self._rests:
            self._rests.pop(address, None)

    def _owner(self, key: str, tried: Collection[Address] = ()) -> Address | None:
        """Who owns ``key`` or stands in for its owner; None where nobody does who is not resting."""
        if self._routes is None:
            return None
        for address in self._routes.of(slot_of(key.encode())):
            if address not in tried and not self._resting(address):
                return address
        return None

    def _resting(self, address: Address) -> bool:
        return bool(self._rests) and self._rest_s(address) > self._clock()

    def _rest_s(self, address: Address) -> float:
        return self._rests.get(address, (0.0, 0))[0]
