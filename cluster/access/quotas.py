"""How much of the node one tenant may use at once. Pure: the clock is given.

A token bucket bounds requests a second, a count bounds those that wait. Both refuse at once, with a hint
when to come again: nothing of a tenant's queues before it is let in.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from cluster.config import TenantConfig
from snapring.errors import Overloaded

_BUSY_RETRY_S: Final = 0.05
_BURSTS_PER_S: Final = 10

_LEAST_REST_S: Final = 0.01
_MOST_REST_S: Final = 0.08
"""How long a tenant is better not heard after a refusal for want of its rate: each time in a row twice as long."""


class Allowance:
    """What ``config`` leaves one tenant, all its connections together.

    ``credit`` is open to the hit path: it takes 1 of it for each request while it is at least 1, and else asks
    `take`, which knows the time. It is infinite where nothing is bounded. ``refused`` counts refusals. ``rest_s``
    is how long the tenant is better not heard after the last one, as to refuse costs as much as to answer.
    """

    __slots__ = ("_burst", "_clock", "_filled_s", "_most", "_rate", "_waiting", "credit", "refused", "rest_s")

    def __init__(self, config: TenantConfig, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rate = float(config.rate or 0)
        self._burst = float(config.burst or max(1, (config.rate or 0) // _BURSTS_PER_S))
        self._most = config.in_flight
        self._filled_s = clock()
        self._waiting = 0
        self.credit = self._burst if config.rate else inf
        self.refused = 0
        self.rest_s = 0.0

    def __repr__(self) -> str:
        return f"<Allowance credit={self.credit:.0f} waiting={self._waiting} refused={self.refused}>"

    @property
    def waiting(self) -> int:
        """How many requests have entered and not left."""
        return self._waiting

    @property
    def metered(self) -> bool:
        """Whether requests a second are bounded."""
        return self.credit != inf

    def take(self, requests: int = 1) -> None:
        """Let in so many requests. Raises `Overloaded` if that is more than the rate leaves.

        What is more than a whole burst goes in when the bucket is full, and is paid back afterwards.
        """
        if not self._rate:
            return
        now = self._clock()
        self.credit = min(self._burst, self.credit + (now - self._filled_s) * self._rate)
        self._filled_s = now
        needed = min(float(requests), self._burst)
        if self.credit < needed:
            self.refused += 1
            self.rest_s = min(_MOST_REST_S, max(_LEAST_REST_S, 2 * self.rest_s))
            raise Overloaded(
                "the tenant's request rate is used up", retry_after_s=(needed - self.credit) / self._rate
            )
        self.credit -= requests
        self.rest_s = 0.0

    def enter(self) -> None:
        """A request begins to wait. Raises `Overloaded` if too many do."""
        if self._most is not None and self._waiting >= self._most:
            self.refused += 1
            raise Overloaded(
                f"{self._waiting} requests of the tenant are waiting", retry_after_s=_BUSY_RETRY_S
            )
        self._waiting += 1

    def leave(self) -> None:
        """A request that entered waits no longer."""
        self._waiting -= 1


def part(config: TenantConfig, places: int) -> int:
    """How many of the ``places`` of a queue one tenant may fill: at least one."""
    return max(1, int(config.queue_share * places))
