"""Which entries to keep: a FIFO policy that adapts where it misses and does nothing where it hits. Pure.

The frame is S3-FIFO (Yang et al., SOSP 2023): newcomers wait in a *small* queue, those used there move
to *main*, which is a CLOCK, and a *ghost* remembers what left. A hit only raises the entry's counter;
all else happens on a miss. Plain S3-FIFO gets nothing out of a loop larger than memory, and its constants
suit only some loads, so four of its decisions follow here from what the ghost shows:

* **Into main** as in LIRS (Jiang & Zhang, SIGMETRICS 2002; by CLOCK: USENIX ATC 2005). Who returns
  ``d`` ticks after it was queued displaces main's oldest, used ``n`` times in the ``e`` ticks since the
  clock saw it, only if ``d * (n + 1) < e``, that is if it is surely used more often. In a loop nobody
  is, so main stands still and hits.
* **Small's share** as in ARC (Megiddo & Modha, FAST 2003). Who returns soon after it left small would
  have hit in a larger small: the share grows. Who returns soon after it left main shrinks it; who is not
  let into main shrinks it a little, by the part of its kind that so much more main would have kept.
* **One use or two** before small passes an entry on. One, unless entries used once have lately
  returned less often than those that main gave up: uses in quick succession, followed by none.
* **While there is room** newcomers go to main, since there is nobody to protect from them.

Beside these there are *spares*: entries that nobody has asked for yet, such as the copies of another node's. They take
only room that nothing else needs, and leave first, oldest first; one that was used becomes an entry like any other.

Time is counted in ticks, one for each time an entry is queued but as a spare. An eviction takes at most `VISITS` steps
of the clock.
"""

from collections import deque
from typing import Final

from cluster.entries import Entry
from cluster.memory.ghost import Ghost

MAX_FREQUENCY: Final = 3
VISITS: Final = 32
FIRST_SHARE: Final = 0.01
LARGEST_SHARE: Final = 0.9
NEAR: Final = 0.1
"""To return soon is to return before the queue has given up more than this part of the capacity."""
SMALL_SPAN: Final = 2
MAIN_SPAN: Final = 1
"""The ghost knows an entry until its queue has given up so many times the capacity."""
STEP: Final = 2
LEARNING_RATE: Final = 0.01

# An entry's place is the tick of its queueing, then these marks. No place is used twice.
_MAIN: Final = 1
_TRIAL: Final = 2  # came to main after one use and has not been seen by the clock since
_ENDED: Final = 4
_SPARE: Final = 8
_TICK: Final = 4
# A trace is the tick of queueing, then how much the queue had given up (30 bits each), then these marks.
_FROM_MAIN: Final = 1
_USED_ONCE: Final = 2
_GIVEN: Final = 2
_TICKED: Final = 32
_MASK_30: Final = 2**30 - 1


class Queue:
    """Entries, oldest first. Any of them leaves in constant time."""

    __slots__ = ("_entries", "_order", "cost")

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._order: deque[int] = deque()
        self.cost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry, place: int) -> None:
        """Queue ``entry`` at ``place``, which is beyond every place used so far."""
        entry.place = place
        self._entries[place] = entry
        self._order.append(place)
        self.cost += entry.cost

    def remove(self, entry: Entry) -> None:
        """Take out ``entry``."""
        del self._entries[entry.place]
        self.cost -= entry.cost
        if len(self._order) > 2 * len(self._entries) + 64:
            self._order = deque(self._entries)

    def first(self) -> Entry:
        """The oldest entry, which stays."""
        while True:
            entry = self._entries.get(self._order[0])
            if entry is not None:
                return entry
            self._order.popleft()

    def pop(self) -> Entry:
        """Take out the oldest entry."""
        while True:
            entry = self._entries.pop(self._order.popleft(), None)
            if entry is not None:
                self.cost -= entry.cost
                return entry


class Segment:
    """Entries that compete for ``max_bytes``. Never holds more: who must leave leaves first.

    An entry must be one that it `takes`, and not change its cost while in it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._unit = max(1, max_bytes >> 16)
        self.clear()

    def clear(self) -> None:
        """Drop every entry, and what was learnt."""
        self._small, self._main, self._ended = Queue(), Queue(), Queue()
        self.spare = Queue()
        self.used = self.count = 0
        self._ghost = Ghost()
        self._tick = self._spares = 0
        self._share = FIRST_SHARE * self.max_bytes
        self._small_gave = self._main_gave = 0
        self._once_returns, self._main_returns = 1.0, 0.0

    def __repr__(self) -> str:
        queues = f"small={self._small.cost} main={self._main.cost} ended={self._ended.cost} spare={self.spare.cost}"
        return f"<Segment {queues} of {self.max_bytes} share={self._share / self.max_bytes:.3f}>"

    def takes(self, entry: Entry) -> bool:
        """Whether there can be room for ``entry``."""
        return entry.cost <= self.max_bytes

    def resize(self, max_bytes: int) -> None:
        """Compete for so much from here on. What is too much by then leaves with the next newcomer."""
        self._share *= max_bytes / self.max_bytes
        self.max_bytes = max_bytes

    def shed(self, size: int) -> list[Entry]:
        """Give up at least ``size`` bytes, or all there is. Returns who had to leave."""
        self.resize(max(1, self.used - size))
        return self._make_room(0, 0)

    def insert(self, entry: Entry) -> list[Entry]:
        """Take in a newcomer. Returns whom it displaced."""
        self._tick += 1
        entry.frequency = 0
        return self._take_in(entry, self._judge(entry))

    def spares(self) -> tuple[int, int]:
        """How many entries are spare, and what they cost."""
        return len(self.spare), self.spare.cost

    def insert_spare(self, entry: Entry) -> list[Entry]:
        """Take in a newcomer where nobody but ended and other spare entries must leave for it.

        Returns whom it displaced: itself, where there is no room.
        """
        needed = self.used - self._ended.cost - self.spare.cost
        if needed + entry.cost > self.max_bytes:
            return [entry]
        entry.frequency = 0
        displaced: list[Entry] = []
        while self.used + entry.cost > self.max_bytes:
            loser = self._ended.pop() if self._ended.cost else self._oldest_spare()
            if loser is None:  # those that were used are spare no more
                return [*displaced, entry]
            displaced.append(loser)
            self.used -= loser.cost
            self.count -= 1
        self.used += entry.cost
        self.count += 1
        self._spares += 1  # a tick of its own: the others' time does not pass by it
        self.spare.append(entry, self._spares << _TICK | _SPARE)
        return displaced

    def replace(self, old: Entry, entry: Entry) -> list[Entry]:
        """Put ``entry`` in the place that ``old`` has earned. Returns who else had to leave."""
        mark = old.place & (_MAIN | _TRIAL)
        entry.frequency = min(old.frequency + 1, MAX_FREQUENCY)
        self.remove(old)
        return self._take_in(entry, mark)

    def retire(self, entry: Entry) -> None:
        """Let ``entry`` be the next to leave, after those retired before it."""
        mark = entry.place & (_MAIN | _TRIAL)
        self.remove(entry)
        self._tick += 1
        self.used += entry.cost
        self.count += 1
        self._ended.append(entry, self._tick << _TICK | _ENDED | mark)

    def remove(self, entry: Entry) -> None:
        """Take out ``entry``, leaving no trace."""
        self.used -= entry.cost
        self.count -= 1
        if entry.place & _ENDED:
            self._ended.remove(entry)
        elif entry.place & _SPARE:
            self.spare.remove(entry)
        else:
            (self._main if entry.place & _MAIN else self._small).remove(entry)

    def _take_in(self, entry: Entry, mark: int) -> list[Entry]:
        displaced = self._make_room(entry.cost, mark)
        self._append(entry, mark)
        self.used += entry.cost
        self.count += 1
        return displaced

    def _append(self, entry: Entry, mark: int) -> None:
        self._tick += 1
        (self._main if mark else self._small).append(entry, self._tick << _TICK | mark)

    def _judge(self, entry: Entry) -> int:
        """The queue for a newcomer, by what is known of its key: `_MAIN`, or 0 for small."""
        trace = self._ghost.recall(entry.key)
        if not trace:
            return self._unknown(entry)
        gave, span = (self._main_gave, MAIN_SPAN) if trace & _FROM_MAIN else (self._small_gave, SMALL_SPAN)
        since = ((gave // self._unit - (trace >> _GIVEN)) & _MASK_30) * self._unit
        if since > span * self.max_bytes:
            self._learn(trace, 0)
            return self._unknown(entry)
        self._learn(trace, 1)
        if since <= NEAR * self.max_bytes:
            self._grow_small(-STEP * entry.cost if trace & _FROM_MAIN else STEP * entry.cost)
        if self._beats_oldest(entry, (self._tick - (trace >> _TICKED)) & _MASK_30):
            return _MAIN
        self._grow_small(-STEP * entry.cost * NEAR / SMALL_SPAN)
        return 0

    def _unknown(self, entry: Entry) -> int:
        free = self.used - self.spare.cost + entry.cost <= self.max_bytes
        return _MAIN if free and self._main.cost + entry.cost <= self._main_limit(entry.cost) else 0

    def _main_limit(self, newcomer: int) -> float:
        """What main may hold. Small has its share, and always room for the newcomer."""
        return self.max_bytes - max(self._share, newcomer)

    def _beats_oldest(self, entry: Entry, ticks: int) -> bool:
        if not self._main.cost or self._main.cost + entry.cost <= self._main_limit(entry.cost):
            return True
        oldest = self._main.first()
        uses = min(oldest.frequency, MAX_FREQUENCY)
        if ticks * (uses + 1) < self._tick - (oldest.place >> _TICK):
            return True
        if uses:
            self._pass_over(self._main.pop())
        return False

    def _make_room(self, cost: int, mark: int) -> list[Entry]:
        displaced: list[Entry] = []
        main_limit = self._main_limit(cost) - (cost if mark else 0)
        while self.used + cost > self.max_bytes:
            if self._ended.cost:
                entry = self._ended.pop()
                self._remember(entry)
            elif (spare := self._oldest_spare()) is not None:
                entry = spare
            elif self._small.cost and (self._main.cost <= main_limit or not self._main.cost):
                entry = self._small.pop()
                if self._promote(entry):
                    continue
            else:
                entry = self._oldest_unused()
            displaced.append(entry)
            self.used -= entry.cost
            self.count -= 1
        return displaced

    def _oldest_spare(self) -> Entry | None:
        """Take the next spare entry to leave; None where there is none left, of those who were not used."""
        for _ in range(VISITS):
            if not self.spare.cost:
                return None
            entry = self.spare.pop()
            if not entry.frequency:
                return entry
            entry.frequency = min(entry.frequency, MAX_FREQUENCY) - 1
            self._append(entry, 0)
        return self.spare.pop() if self.spare.cost else None

    def _promote(self, entry: Entry) -> bool:
        """Pass an entry on from small to main, if it was used enough there."""
        uses = entry.frequency
        if uses > 1 or (uses == 1 and self._once_returns >= self._main_returns):
            entry.frequency = 0
            self._append(entry, _MAIN | _TRIAL if uses == 1 else _MAIN)
            return True
        self._remember(entry)
        return False

    def _oldest_unused(self) -> Entry:
        """Take the next entry to leave out of main."""
        main = self._main
        for _ in range(VISITS):
            entry = main.pop()
            if not entry.frequency:
                break
            self._pass_over(entry)
        else:
            entry = main.pop()
        if entry.place & _TRIAL:
            self._tried(entry)
        self._remember(entry)
        return entry

    def _pass_over(self, entry: Entry) -> None:
        """Back to the end of main, one use poorer."""
        if entry.place & _TRIAL:
            self._tried(entry)
        entry.frequency = min(entry.frequency, MAX_FREQUENCY) - 1
        self._tick += 1
        self._main.append(entry, self._tick << _TICK | _MAIN)

    def _tried(self, entry: Entry) -> None:
        used = 1 if entry.frequency else 0
        self._once_returns += LEARNING_RATE * (used - self._once_returns)

    def _remember(self, entry: Entry) -> None:
        place = entry.place
        if place & _MAIN:
            self._main_gave += entry.cost
            given, marks = self._main_gave // self._unit, _FROM_MAIN
        else:
            self._small_gave += entry.cost
            given, marks = self._small_gave // self._unit, _USED_ONCE if entry.frequency == 1 else 0
        ticked = (place >> _TICK) & _MASK_30
        lost = self._ghost.remember(entry.key, ticked << _TICKED | (given & _MASK_30) << _GIVEN | marks)
        if lost & (_FROM_MAIN | _USED_ONCE):
            self._learn(lost, 0)
        self._ghost.fit(self.count - len(self.spare))

    def _learn(self, trace: int, returned: int) -> None:
        if trace & _FROM_MAIN:
            self._main_returns += LEARNING_RATE * (returned - self._main_returns)
        elif trace & _USED_ONCE:
            self._once_returns += LEARNING_RATE * (returned - self._once_returns)

    def _grow_small(self, cost: float) -> None:
        self._share = min(max(self._share + cost, 0.0), LARGEST_SHARE * self.max_bytes)
