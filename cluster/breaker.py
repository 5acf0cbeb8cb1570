"""The circuit breaker between a node and Postgres.

pybreaker keeps the state, the storage and the listeners; this adapter decides when to change it,
because pybreaker's own call wrappers do nothing for coroutines and let any number of probes through a
half-open circuit. It sits below all caches: an open breaker refuses loads, never a hit.

Closed, it opens when ``failures`` failures of the database fall into a rolling ``window_s``. Open, it
refuses every load at once. Exactly one caller probes, the feed with its poll, every ``reset_s``; the
poll's success closes it, but not before ``reset_s``, and twice as long each time it opens again within
``window_s`` (at most ``window_s``): loads may fail although polls do not. Errors of one query, and cancellations, are no failures of the database: who
calls `failed` decides that.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

import pybreaker

from cluster.config import BreakerConfig
from snapring.errors import Unavailable


class Breaker:
    """The state of one node's way to Postgres. For one event loop; no method awaits."""

    def __init__(
        self,
        config: BreakerConfig,
        *,
        clock: Callable[[], float] = monotonic,
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
    ) -> None:
        self._config = config
        self._clock = clock
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=config.failures,
            reset_timeout=config.reset_s,
            listeners=list(listeners),
            name="postgres",
        )
        self._failed_at: deque[float] = deque(maxlen=config.failures)
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

    def guard(self) -> None:
        """Raise `Unavailable` unless the breaker is closed."""
        if not self.closed:
            raise Unavailable(f"Postgres is out of reach ({self._last_failure}): retry")

    def failed(self, reason: str) -> None:
        """Postgres failed to serve: count it, and open if the window is full of failures."""
        now = self._clock()
        self._last_failure = reason
        self._failed_at.append(now)
        full = len(self._failed_at) == self._config.failures
        if not self.closed or (full and now - self._failed_at[0] <= self._config.window_s):
            self._open(now)

    def probing(self) -> None:
        """The one prober is about to try: half-open, if it was open."""
        if not self.closed:
            self._circuit.half_open()

    def recovered(self) -> None:
        """The probe succeeded: loads may go to Postgres again, if the breaker was open for long enough."""
        now = self._clock()
        if not self.closed and now - self._opened_s >= self._hold_s:
            self._failed_at.clear()
            self._closed_s = now
            self._circuit.close()

    def _open(self, now: float) -> None:
        if self.closed:
            again = now - self._closed_s <= self._config.window_s
            self._hold_s = min(self._hold_s * 2, self._config.window_s) if again else self._config.reset_s
            self._opened_s = now
        if self._circuit.current_state != pybreaker.STATE_OPEN:
            self._circuit.open()
