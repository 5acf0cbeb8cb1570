"""Whose turn it is among the writes that wait: two under way never write the same key. Pure.

A write that finds one of its keys held waits behind that key, and costs nothing until the key is free. A key is
held by the writes under way that name it, and by one that came back because another transaction was writing it;
that one rests for a while, is tried again, and keeps the others of its key from trying in vain.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from snapring.keys import Key


class Keyed(Protocol):
    """What has a set of keys, and an identity."""

    @property
    def keys(self) -> frozenset[Key]:
        """The keys that it writes."""


W = TypeVar("W", bound=Keyed)


class Turns(Generic[W]):
    """The writes that wait, in the order they came, as far as their keys allow."""

    def __init__(self) -> None:
        self._ready: OrderedDict[W, None] = OrderedDict()  # to be looked at
        self._behind: dict[Key, OrderedDict[W, None]] = {}  # of a key that is held
        self._places: dict[W, OrderedDict[W, None] | None] = {}  # where each one waits; None: it rests
        self._came_back: dict[Key, W] = {}  # who is tried again for all that wait behind the key
        self._held: Counter[Key] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[W]:
        return iter(self._places)

    @property
    def held_up(self) -> int:
        """How many wait for a key, not for a connection."""
        return len(self._places) - len(self._ready)

    def waiting_for(self, keys: Iterable[Key]) -> int:
        """How many wait behind that one of ``keys`` which has most of them."""
        return max((len(self._behind.get(key, ())) for key in keys), default=0)

    def add(self, write: W) -> None:
        """``write`` waits from now on."""
        self._place(write, self._ready)

    def any(self) -> bool:
        """Whether `take` would bring something."""
        while self._ready:
            write = next(iter(self._ready))
            if not self._hindered(write):
                return True
        return False

    def take(self, workers: int, most: int) -> Sequence[W]:
        """What is under way from here on: one of ``workers``' share of what may go, ``most`` at most."""
        share = min(-(-len(self._ready) // workers), most)
        taken: list[W] = []
        while self._ready and len(taken) < share:
            write = next(iter(self._ready))
            if not self._hindered(write):
                del self._ready[write]
                taken.append(write)
        for write in taken:
            del self._places[write]
            self._held.update(write.keys)
            self._let_go(write)
        return taken

    def done(self, taken: Iterable[W]) -> None:
        """None of ``taken`` is under way any longer."""
        for write in taken:
            self._free(write.keys)

    def came_back(self, write: W, busy: Key) -> bool:
        """``write`` was not done, as another transaction writes ``busy``; whether it is the one to try again."""
        if busy in self._came_back:
            self._wait_behind(write, busy)
            return False
        self._places[write] = None
        self._came_back[busy] = write
        self._held[busy] += 1
        return True

    def again(self, write: W) -> None:
        """``write`` has rested: it goes next. Nothing happens if it waits no longer."""
        if write in self._places and self._places[write] is None:
            self._place(write, self._ready)
            self._ready.move_to_end(write, last=False)

    def withdraw(self, write: W) -> bool:
        """Whether ``write`` waited; it does no longer."""
        if write not in self._places:
            return False
        place = self._places.pop(write)
        if place is not None:
            del place[write]
        self._let_go(write)
        return True

    def clear(self) -> Sequence[W]:
        """Nothing waits any longer; what did."""
        waited = tuple(self._places)
        for write in waited:
            self.withdraw(write)
        return waited

    def _place(self, write: W, place: OrderedDict[W, None]) -> None:
        place[write] = None
        self._places[write] = place

    def _wait_behind(self, write: W, key: Key) -> None:
        self._ready.pop(write, None)
        self._place(write, self._behind.setdefault(key, OrderedDict()))

    def _hindered(self, write: W) -> bool:
        """Whether others hold a key of ``write``: then it waits behind that, and holds none itself."""
        for key in write.keys:
            if self._held[key] > (self._came_back.get(key) is write):
                self._let_go(write)
                self._wait_behind(write, key)
                return True
        return False

    def _let_go(self, write: W) -> None:
        """``write`` has been taken, or waits no longer: what it held since it came back is free."""
        own = [key for key in write.keys if self._came_back.get(key) is write]
        for key in own:
            del self._came_back[key]
        self._free(own)

    def _free(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._next_behind(key)

    def _next_behind(self, key: Key) -> None:
        for write in reversed(self._behind.pop(key, OrderedDict())):
            self._place(write, self._ready)
            self._ready.move_to_end(write, last=False)
