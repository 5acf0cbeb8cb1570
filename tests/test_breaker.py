"""The breaker: opens on a window of failures, closes on one probe."""

import pytest

from cluster.breaker import Breaker
from cluster.config import BreakerConfig
from snapring.errors import Unavailable


class Clock:
    """Time that stands still until told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """A breaker that opens at three failures within ten seconds."""
    return Breaker(BreakerConfig(failures=3, window_s=10.0, reset_s=0.5), clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    """Count failures of the database."""
    for _ in range(times):
        breaker.failed("connection refused")


def test_it_opens_when_the_window_is_full(breaker: Breaker) -> None:
    """One failure fewer changes nothing; the last one refuses loads and says why."""
    fail(breaker, 2)
    breaker.guard()
    fail(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(Unavailable, match="connection refused"):
        breaker.guard()


def test_failures_spread_over_time_do_not_open_it(breaker: Breaker, clock: Clock) -> None:
    """Old failures leave the window, as long as polls succeed between them."""
    for _ in range(10):
        fail(breaker, 1)
        clock.now_s += 6.0
        breaker.recovered()
    assert breaker.closed


def test_failures_in_a_row_open_it_however_long_each_takes(breaker: Breaker, clock: Clock) -> None:
    """A silent database fails once per timeout; no window must be too short for that."""
    for _ in range(2):
        clock.now_s += 60.0
        fail(breaker, 1)
        assert breaker.closed
    clock.now_s += 60.0
    fail(breaker, 1)
    assert not breaker.closed


def test_silence_counts_only_where_polls_are_silent_too(breaker: Breaker, clock: Clock) -> None:
    """A load that outlasts successful polls waits for a lock, not for Postgres."""
    since_s = clock.now_s
    clock.now_s += 1.0
    breaker.recovered()
    for _ in range(3):
        breaker.silent("timed out", since_s)
    assert breaker.closed
    for _ in range(3):
        breaker.silent("timed out", clock.now_s + 0.1)
    assert not breaker.closed


def test_who_waits_is_told_once_that_it_opened(breaker: Breaker) -> None:
    """Not again for each probe that fails."""
    told: list[str] = []
    breaker.when_opened(lambda: told.append(breaker.state))
    fail(breaker, 3)
    breaker.probing()
    fail(breaker, 1)
    assert told == ["open"]


def test_probing_lets_no_load_through(breaker: Breaker) -> None:
    """Half-open is for the one prober alone."""
    fail(breaker, 3)
    breaker.probing()
    assert breaker.state == "half-open"
    with pytest.raises(Unavailable):
        breaker.guard()


def test_a_failed_probe_opens_it_again(breaker: Breaker) -> None:
    """One failure is enough when half-open, whatever the window says."""
    fail(breaker, 3)
    breaker.probing()
    fail(breaker, 1)
    assert breaker.state == "open"


def test_a_successful_probe_closes_it_with_a_clean_window(breaker: Breaker, clock: Clock) -> None:
    """After recovery, not before reset_s, the old failures count no more."""
    fail(breaker, 3)
    breaker.probing()
    breaker.recovered()
    assert not breaker.closed
    clock.now_s += 0.5
    breaker.recovered()
    assert breaker.closed
    fail(breaker, 2)
    assert breaker.closed


def test_it_stays_open_longer_each_time_it_opens_again_soon(breaker: Breaker, clock: Clock) -> None:
    """Loads that fail although polls succeed must not make it flap."""
    held = []
    for _ in range(8):
        fail(breaker, 3)
        opened_s = clock.now_s
        while not breaker.closed:
            clock.now_s += 0.125
            breaker.recovered()
        held.append(clock.now_s - opened_s)
    assert held == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    clock.now_s += 60.0
    fail(breaker, 3)
    clock.now_s += 0.5
    breaker.recovered()
    assert breaker.closed


def test_success_while_closed_forgets_nothing(breaker: Breaker) -> None:
    """Polls that succeed between failing loads do not hide the failures."""
    fail(breaker, 1)
    breaker.recovered()
    fail(breaker, 1)
    breaker.recovered()
    fail(breaker, 1)
    assert breaker.state == "open"
