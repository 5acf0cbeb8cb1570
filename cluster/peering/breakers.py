"""A circuit breaker for each peer: who fails again and again is asked no more, but for a probe now and then.

pybreaker keeps state and listeners, as for Postgres (`cluster.breaker`, which says why no more of it is used). Closed,
it opens when ``breaker_failures`` failures fall into a rolling ``breaker_window_s``; calls that were under way together
and fail together are one failure. Open, one call each ``breaker_reset_s`` is let through as a probe, and no other
before a hop's time has passed as well, so that there is one at a time; its success closes the breaker. It
stays open twice as long each time it opens again within the window, at most as long as the window.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import Final

import pybreaker

from cluster.breaker import STATES, Transitions
from cluster.config import PeersConfig

_log: Final = logging.getLogger("snapring.peers")


class Breakers:
    """For one event loop; no method awaits. ``skipped`` counts the calls that were not made, ``transitions`` the
    changes of state by what it became.

    A peer that has never failed has no breaker, and costs one look into an empty dictionary.
    """

    def __init__(self, config: PeersConfig, *, clock: Callable[[], float] = monotonic) -> None:
        self._config = config
        self._clock = clock
        self._of: dict[str, _Breaker] = {}
        self.transitions: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        self.skipped = 0

    def __repr__(self) -> str:
        return f"<Breakers {self._of} skipped={self.skipped}>"

    def admits(self, name: str) -> bool:
        """Whether to ask ``name`` now. If so, `succeeded` or `failed` should follow; if not, that is counted."""
        admitted = self.would_admit(name)
        self.skipped += not admitted
        return admitted

    def would_admit(self, name: str) -> bool:
        """The same for who asks again before he goes on without ``name``: it is not counted yet."""
        breaker = self._of.get(name)
        return breaker is None or breaker.admits(self._clock())

    def succeeded(self, name: str) -> None:
        """``name`` has answered, be it with an error about the request."""
        breaker = self._of.get(name)
        if breaker is not None:
            breaker.succeeded(self._clock())

    def failed(self, name: str, reason: str, *, since_s: float) -> None:
        """A call to ``name``, made at monotonic ``since_s``, failed by the peer's or the hop's fault."""
        breaker = self._of.get(name)
        if breaker is None:
            breaker = self._of[name] = _Breaker(name, self._config, self.transitions)
        breaker.failed(self._clock(), reason, since_s)

    def states(self) -> Mapping[str, str]:
        """``closed``, ``open`` or ``half-open``, of each peer that has failed once."""
        return {name: breaker.state for name, breaker in self._of.items()}


class _Breaker:
    def __init__(self, name: str, config: PeersConfig, transitions: Counter[str]) -> None:
        self._config = config
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=config.breaker_failures,
            reset_timeout=config.breaker_reset_s,
            listeners=[Transitions(transitions)],
            name=name,
        )
        self._failed_at: deque[float] = deque(maxlen=config.breaker_failures)
        self._last_failed_s = self._closed_s = self._probe_s = -inf
        self._hold_s = config.breaker_reset_s

    def __repr__(self) -> str:
        return f"<{self.state} failures={len(self._failed_at)}>"

    @property
    def state(self) -> str:
        return self._circuit.current_state

    @property
    def _closed(self) -> bool:
        return self._circuit.current_state == pybreaker.STATE_CLOSED

    def admits(self, now_s: float) -> bool:
        if self._closed:
            return True
        if now_s < self._probe_s:
            return False
        self._probe_s = now_s + max(self._hold_s, self._config.hop_timeout_s)
        self._circuit.half_open()
        return True

    def succeeded(self, now_s: float) -> None:
        if self._circuit.current_state == pybreaker.STATE_HALF_OPEN:
            self._failed_at.clear()
            self._closed_s = now_s
            self._circuit.close()
            _log.info("%s answers again", self._circuit.name)

    def failed(self, now_s: float, reason: str, since_s: float) -> None:
        if since_s < self._last_failed_s:
            return
        self._last_failed_s = now_s
        self._failed_at.append(now_s)
        full = len(self._failed_at) == self._config.breaker_failures
        if self._closed and full and now_s - self._failed_at[0] <= self._config.breaker_window_s:
            self._open(now_s, reason)
        elif self._circuit.current_state == pybreaker.STATE_HALF_OPEN:
            self._circuit.open()
            self._probe_s = now_s + self._hold_s

    def _open(self, now_s: float, reason: str) -> None:
        config = self._config
        again = now_s - self._closed_s <= config.breaker_window_s
        longest_s = max(config.breaker_window_s, config.breaker_reset_s)
        self._hold_s = min(2 * self._hold_s, longest_s) if again else config.breaker_reset_s
        self._probe_s = now_s + self._hold_s
        self._circuit.open()
        _log.warning("%s is asked no more for now: %s", self._circuit.name, reason)
