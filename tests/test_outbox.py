"""The calls of a channel, each in its place: bounded, in order, none lost and none sent twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.bounds import Bounds
from peers.errors import MessageTooLarge, PeerUnreachable
from peers.outbox import Outbox, Pending
from peers.wire import Call
from snapring.errors import Overloaded, SnapringError

BOUNDS = Bounds(
    max_body_bytes=20,
    max_batch_calls=3,
    max_batch_bytes=30,
    max_waiting=6,
    max_under_way=5,
    max_held_bytes=60,
)


class Kept(Pending):
    """A call that keeps its outcomes."""

    def __init__(self, size: int) -> None:
        super().__init__(Call(kind=1, body=b"x" * size, timeout_s=10.0))
        self.outcomes: list[bytes | SnapringError] = []

    def answered(self, body: bytes) -> None:
        self.outcomes.append(body)

    def failed(self, error: SnapringError) -> None:
        self.outcomes.append(error)


def enter(outbox: Outbox, size: int = 1) -> Kept:
    pending = Kept(size)
    outbox.enter(pending)
    return pending


def test_a_batch_has_at_most_so_many_calls_and_bytes() -> None:
    """In the order in which they came; a body larger than a batch goes alone."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    for size in (10, 20, 5, 1, 1):
        enter(outbox, size)
    assert [[row[0] for row in outbox.take()] for _ in range(3)] == [[1, 2], [3, 4, 5], []]
    alone = Outbox(Bounds(max_batch_bytes=5), clock=lambda: 0.0)
    for size in (9, 9, 1):
        enter(alone, size)
    assert [[row[0] for row in alone.take()] for _ in range(3)] == [[1], [2], [3]]


def test_no_more_than_max_under_way_is_sent_before_answers_come() -> None:
    """An answer makes room for the next call."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    for _ in range(6):
        enter(outbox)
    assert [len(outbox.take()) for _ in range(3)] == [3, 2, 0]
    assert outbox.answered(1) is not None
    assert [row[0] for row in outbox.take()] == [6]


def test_what_would_wait_beyond_the_bounds_is_refused() -> None:
    """By count, by bytes, and a body that is too large at all; the refusal takes no place."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    with pytest.raises(MessageTooLarge):
        enter(outbox, 21)
    for _ in range(3):
        enter(outbox, 20)
    with pytest.raises(Overloaded) as refusal:
        enter(outbox)
    assert refusal.value.retry_after_s == BOUNDS.retry_after_s
    outbox.take()
    for _ in range(4):
        enter(outbox)
    with pytest.raises(Overloaded):
        enter(outbox, 0)


def test_a_call_travels_with_the_time_it_has_left() -> None:
    """The time spent waiting here counts."""
    now = [100.0]
    outbox = Outbox(BOUNDS, clock=lambda: now[0])
    enter(outbox)
    now[0] = 107.5
    ((_, _, left_us, _),) = outbox.take()
    assert left_us == 2_500_000


def test_only_a_call_under_way_has_to_be_called_off() -> None:
    """One that waits is just gone; one that was answered too."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    first, second, third = enter(outbox), enter(outbox), enter(outbox)
    assert not outbox.leave(first)
    assert [row[0] for row in outbox.take()] == [2, 3]
    assert outbox.answered(2) is second
    assert not outbox.leave(second)
    assert outbox.leave(third)
    assert (outbox.take_left(), outbox.take_left(), len(outbox)) == ([3], [], 0)


def test_when_the_connection_is_lost_everyone_hears_it() -> None:
    """Waiting or under way, each with an error of its own; all places are free."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    pending = [enter(outbox) for _ in range(5)]
    outbox.take()
    outbox.leave(pending[4])
    outbox.fail_all(lambda: PeerUnreachable("lost"))
    (errors, none) = [error for each in pending[:4] for error in each.outcomes], pending[4].outcomes
    assert {type(error) for error in errors} == {PeerUnreachable}
    assert (len(set(map(id, errors))), none) == (4, [])
    assert (len(outbox), outbox.waiting_bytes) == (0, 0)


def test_who_leaves_while_the_others_hear_of_the_loss_hears_nothing() -> None:
    """As where one client's end is the end of all that it asked for."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    first, second = enter(outbox), enter(outbox)
    first.failed = lambda _: outbox.leave(second)  # type: ignore[method-assign]
    outbox.fail_all(lambda: PeerUnreachable("lost"))
    assert second.outcomes == []


@given(st.lists(st.tuples(st.sampled_from(["enter", "take", "answer", "leave", "lose"]), st.integers(0, 20))))
def test_every_call_has_one_place_and_one_way_out(steps: list[tuple[str, int]]) -> None:
    """Against a list of what is where; sizes, picks and steps at random."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    waiting: list[Kept] = []
    under_way: list[Kept] = []
    for step, pick in steps:
        if step == "enter":
            fits = len(waiting) < 6 and sum(len(one.call.body) for one in waiting) + pick <= 60
            try:
                waiting.append(enter(outbox, pick))
            except Overloaded:
                assert not fits
            else:
                assert fits
        elif step == "take":
            taken = [row[0] for row in outbox.take()]
            assert taken == [one.number for one in waiting[: len(taken)]]
            assert bool(taken) == bool(waiting and len(under_way) < 5)
            under_way += waiting[: len(taken)]
            del waiting[: len(taken)]
        elif step == "lose":
            outbox.fail_all(lambda: PeerUnreachable("lost"))
            assert all(len(one.outcomes) == 1 for one in waiting + under_way)
            waiting, under_way = [], []
        elif there := under_way if step == "answer" else waiting + under_way:
            one = there[pick % len(there)]
            if step == "answer":
                assert outbox.answered(one.number) is one
            else:
                assert outbox.leave(one) == (one in under_way)
            waiting = [other for other in waiting if other is not one]
            under_way = [other for other in under_way if other is not one]
        assert (outbox.waiting, outbox.under_way) == (len(waiting), len(under_way))
        assert outbox.waiting_bytes == sum(len(one.call.body) for one in waiting)


def test_traces_go_with_the_calls_that_have_one() -> None:
    """By their numbers, with the message that they go in, and as part of its size."""
    outbox = Outbox(BOUNDS, clock=lambda: 0.0)
    enter(outbox, 10)
    traced = Kept(10)
    traced.call = traced.call._replace(trace=b"0123456789")
    outbox.enter(traced)
    enter(outbox, 10)
    assert [[row[0] for row in outbox.take()], outbox.traces] == [[1, 2], [(2, b"0123456789")]]
    assert [[row[0] for row in outbox.take()], outbox.traces] == [[3], []]
