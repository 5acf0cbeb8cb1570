"""Who is heard next, where clients show keys: no tenant's commands keep the others' waiting for more than a turn.

A turn is a length of time. As long as a tenant's connections take less than about half of the loop's, what comes in
is heard at once. Beyond that they stand in line, all of the tenant's in one, and get one turn in each round of
the loop, in which the other tenants are heard too: so a flood waits for itself, however many connections it has. A
line takes all the time that nobody else wants, and a tenant that is alone is heard at once, whatever it takes.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic

from cluster.access.gate import Caller


class Share:
    """The turns of one tenant's connections, each of ``turn_s`` seconds.

    ``until_s`` is the monotonic time when the present turn is over, long ago where there is none. ``free`` says whether
    every moment is a turn without an end: no other tenant has connections, and this one does not rest.
    """

    __slots__ = (
        "_all",
        "_alone",
        "_called",
        "_clock",
        "_left_s",
        "_line",
        "_loop",
        "_members",
        "_owed",
        "_resting",
        "_since_s",
        "_turn_s",
        "free",
        "until_s",
    )

    def __init__(self, everybody: "Shares", turn_s: float, clock: Callable[[], float]) -> None:
        self._all = everybody
        self._clock = clock
        self._members = 0
        self._alone = False
        self._turn_s = turn_s
        self._loop = asyncio.get_running_loop()
        self._line: deque[Callable[[], None]] = deque()
        self._left_s = 0.0
        self._since_s = -inf  # when that was a whole turn
        self._called = False  # for the next turn
        self._resting = False
        self._owed = 0  # of those in line, have stood there through a rest
        self.free = False
        self.until_s = -inf

    def __repr__(self) -> str:
        return f"<Share line={len(self._line)} resting={self._resting}>"

    def enter(self) -> None:
        """A connection of the tenant's is there, until it will `leave`."""
        self._members += 1
        if self._members == 1:
            self._all.come(self)

    def leave(self) -> None:
        """It is no longer."""
        self._members -= 1
        if not self._members:
            self._all.gone(self)

    def stand(self, *, alone: bool) -> None:
        """Whether no other tenant has connections, from now on."""
        self._alone = alone
        self.free = alone and not self._resting

    def begin(self, now: float) -> bool:
        """Whether there is a turn for who comes at monotonic ``now``: `end` it. If not, `wait`."""
        if self._line or self._resting:
            return False
        if now - self._since_s > 2 * self._turn_s:
            self._since_s, self._left_s = now, self._turn_s
        self.until_s = now + self._left_s
        return self._left_s > 0

    def end(self) -> None:
        """Of a turn that was begun."""
        self._left_s = self.until_s - self._clock()
        self.until_s = -inf

    def charge(self, seconds: float) -> None:
        """What has been begun in this turn will take so long in other ones."""
        self.until_s -= seconds

    def wait(self, hear: Callable[[], None]) -> None:
        """``hear`` is called within a later turn, behind those who wait."""
        self._line.append(hear)
        self._call()

    def rest(self, seconds: float) -> None:
        """Have no turn for so long, but for those who have stood in line through a rest before."""
        if not self._resting and not self._owed:
            self._resting, self.free = True, False
            self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting, self.free = False, self._alone
        self._owed = len(self._line)
        if self._line:
            self._call()

    def _call(self) -> None:
        if not self._called and not self._resting:
            self._called = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._called = False
        line, now = self._line, self._clock()
        self.until_s = inf if self.free else now + self._turn_s
        for _ in range(len(line)):
            self._owed -= self._owed > 0
            line.popleft()()
            now = self._clock()
            if now >= self.until_s or self._resting:
                break
        self._since_s, self._left_s, self.until_s = now, 0.0, -inf
        if line:
            self._call()


class Shares:
    """One of each tenant, and one of all who have not said who they are: a tenant is alone for all of these."""

    def __init__(self, turn_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._turn_s = turn_s
        self._clock = clock
        self._present: set[Share] = set()
        self._only: Share | None = None
        self._strangers = Share(self, turn_s, clock)
        self._of: dict[str, Share] = {}

    def of(self, caller: Caller | None) -> Share:
        """That of ``caller``'s tenant, whatever its key."""
        if caller is None:
            return self._strangers
        tenant = caller.identity.tenant
        share = self._of.get(tenant)
        if share is None:
            share = self._of[tenant] = Share(self, self._turn_s, self._clock)
        return share

    def come(self, share: Share) -> None:
        """It has a connection."""
        self._present.add(share)
        self._see()

    def gone(self, share: Share) -> None:
        """It has none any more."""
        self._present.discard(share)
        self._see()

    def _see(self) -> None:
        if self._only is not None:
            self._only.stand(alone=False)
        waited_for = self._present - {self._strangers} or self._present
        self._only = next(iter(waited_for)) if len(waited_for) == 1 else None
        if self._only is not None:
            self._only.stand(alone=True)
