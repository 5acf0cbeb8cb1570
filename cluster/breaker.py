"""The circuit breaker between a node and Postgres.

pybreaker keeps the state, the storage and the listeners; this adapter decides when to change it,
because pybreaker's own call wrappers do nothing for coroutines and let any number of probes through a
half-open circuit. It sits below all caches: an open breaker refuses loads, never a hit.

Closed, it opens when ``failures`` failures of the database fall into a rolling ``window_s``, or follow one
another without a successful poll between: a silent database takes seconds to fail once. Open, it
refuses every load at once. Exactly one caller probes, the feed with its poll, every ``reset_s``; the
poll's success closes it, but not before ``reset_s``, and twice as long each time it opens again within
``window_s`` (at most ``window_s``): loads may fail although polls do not. Errors of one query, and
cancellations, are no failures of the database: who calls `failed` decides that. A load that gets no answer
while polls do waits for its query, or for a lock: see `silent`.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Final

import pybreaker

from cluster.config import BreakerConfig
from snapring.errors import Unavailable

STATES: Final = (pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN, pybreaker.STATE_HALF_OPEN)


class Transitions(pybreaker.CircuitBreakerListener):
    """Counts into ``counts`` what state a circuit changes to."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def state_change(
        self, _breaker: pybreaker.CircuitBreaker, _old: object, new: pybreaker.CircuitBreakerState
    ) -> None:
        """Called by pybreaker."""
        self._counts[new.name] += 1


class Breaker:
    """The state of one node's way to Postgres. For one event loop; no method awaits.

    ``transitions`` counts the changes of state by what it became.
    """

    def __init__(
        self,
        config: BreakerConfig,
        *,
        clock: Callable[[], float] = monotonic,
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
    ) -> None:
        self._config = config
        self._clock = clock
        self.transitions: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=config.failures,
            reset_timeout=config.reset_s,
            listeners=[*listeners, Transitions(self.transitions)],
            name="postgres",
        )
        self._failed_at: deque[float] = deque(maxlen=config.failures)
        self._in_a_row = 0
        self._polled_s = -inf
        self._when_opened: list[Callable[[], None]] = []
        self._last_failure = ""
        self._hold_s = config.reset_s
        self._opened_s = self._closed_s = -inf

    def __repr__(self) -> str:
        return f"<Breaker {self.state} failures={len(self._failed_at)}>"

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        return self._circuit.current_state

    @property
    def closed(self) -> bool:
        """Whether loads may go to Postgres."""
        return self._circuit.current_state == pybreaker.STATE_CLOSED

    def when_opened(self, then: Callable[[], None]) -> None:
        """Call ``then`` whenever loads begin to be refused, in the same step."""
        self._when_opened.append(then)

    def guard(self) -> None:
        """Raise `refusal` unless the breaker is closed."""
        if not self.closed:
            raise self.refusal()

    def refusal(self) -> Unavailable:
        """What a load hears while the breaker is not closed."""
        return Unavailable(f"Postgres is out of reach ({self._last_failure}): retry")

    def failed(self, reason: str) -> None:
        """Postgres failed to serve: count it, and open if the window is full of failures."""
        now = self._clock()
        self._last_failure = reason
        self._failed_at.append(now)
        self._in_a_row += 1
        full = len(self._failed_at) == self._config.failures
        frequent = full and now - self._failed_at[0] <= self._config.window_s
        if not self.closed or frequent or self._in_a_row >= self._config.failures:
            self._open(now)

    def silent(self, reason: str, since_s: float) -> None:
        """A load asked for at monotonic ``since_s`` got no answer: a failure if no poll has got one since."""
        if self._polled_s < since_s:
            self.failed(reason)

    def probing(self) -> None:
        """The one prober is about to try: half-open, if it was open."""
        if not self.closed:
            self._circuit.half_open()

    def recovered(self) -> None:
        """A poll succeeded: loads may go to Postgres again, if the breaker was open for long enough."""
        now = self._polled_s = self._clock()
        self._in_a_row = 0
        if not self.closed and now - self._opened_s >= self._hold_s:
            self._failed_at.clear()
            self._closed_s = now
            self._circuit.close()

    def _open(self, now: float) -> None:
        opening = self.closed
        if opening:
            again = now - self._closed_s <= self._config.window_s
            self._hold_s = min(self._hold_s * 2, self._config.window_s) if again else self._config.reset_s
            self._opened_s = now
        if self._circuit.current_state != pybreaker.STATE_OPEN:
            self._circuit.open()
        if opening:
            for then in self._when_opened:
                then()
