"""Who fails again and again is asked no more, but for a probe now and then."""

import pytest

from cluster.config import PeersConfig
from cluster.peering.breakers import Breakers
from discoveries import Clock

CONFIG = PeersConfig(breaker_failures=3, breaker_window_s=10.0, breaker_reset_s=2.0, hop_timeout_s=1.0)


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    """Of peers that have not failed yet."""
    return Breakers(CONFIG, clock=clock)


def fail(breakers: Breakers, clock: Clock, times: int = 3, *, every_s: float = 0.1) -> None:
    """Calls to "a" that fail one after the other."""
    for _ in range(times):
        since_s = clock.now_s
        clock.now_s += every_s
        breakers.failed("a", "gone", since_s=since_s)


def test_failures_within_the_window_open_it(breakers: Breakers, clock: Clock) -> None:
    """For that peer alone."""
    fail(breakers, clock, 2)
    assert breakers.admits("a")
    fail(breakers, clock, 1)
    assert (breakers.admits("a"), breakers.admits("b"), breakers.skipped) == (False, True, 1)
    assert breakers.states() == {"a": "open"}


def test_failures_far_apart_do_not(breakers: Breakers, clock: Clock) -> None:
    """However many they are."""
    fail(breakers, clock, 20, every_s=5.1)
    assert breakers.states() == {"a": "closed"}


def test_calls_that_fail_together_are_one_failure(breakers: Breakers, clock: Clock) -> None:
    """All were under way when one connection broke."""
    since_s, clock.now_s = clock.now_s, clock.now_s + 1.0
    for _ in range(50):
        breakers.failed("a", "the connection broke", since_s=since_s)
    assert breakers.admits("a")


def test_one_probe_at_a_time_finds_out_whether_the_peer_is_back(breakers: Breakers, clock: Clock) -> None:
    """Every ``breaker_reset``; what it finds holds for all."""
    fail(breakers, clock)
    clock.now_s += 2.0
    assert [breakers.admits("a") for _ in range(5)] == [True, False, False, False, False]
    assert breakers.states() == {"a": "half-open"}
    fail(breakers, clock, 1)
    assert (breakers.states(), breakers.admits("a")) == ({"a": "open"}, False)
    clock.now_s += 2.0
    assert breakers.admits("a")
    breakers.succeeded("a")
    assert breakers.states() == {"a": "closed"}
    assert all(breakers.admits("a") for _ in range(5))


def test_a_probe_of_which_nothing_is_heard_is_followed_by_another(breakers: Breakers, clock: Clock) -> None:
    """Its caller may have left."""
    fail(breakers, clock)
    clock.now_s += 2.0
    assert breakers.admits("a")
    clock.now_s += 1.9
    assert not breakers.admits("a")
    clock.now_s += 0.1
    assert breakers.admits("a")


def test_an_answer_to_a_call_of_before_closes_nothing(breakers: Breakers, clock: Clock) -> None:
    """Only a probe does."""
    fail(breakers, clock)
    breakers.succeeded("a")
    assert breakers.states() == {"a": "open"}


def test_who_fails_again_soon_is_left_alone_for_longer(breakers: Breakers, clock: Clock) -> None:
    """Twice as long each time, up to the window; and as before, once it was well for that long."""
    holds = []
    for _ in range(5):
        fail(breakers, clock)
        began_s = clock.now_s
        while not breakers.admits("a"):
            clock.now_s += 0.5
        holds.append(clock.now_s - began_s)
        breakers.succeeded("a")
    clock.now_s += 10.1
    fail(breakers, clock)
    clock.now_s += 2.0
    assert holds == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert breakers.admits("a")
