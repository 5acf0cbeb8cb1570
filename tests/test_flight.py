"""Single flight: shared by all, owned by none."""

import asyncio
from time import monotonic

import pytest

from cluster.flight import Flights
from snapring.errors import DeadlineExceeded, QueryFailed

FAR_S = 60.0


class Tower:
    """Flights whose landing the test decides."""

    def __init__(self) -> None:
        self.flights: Flights[int] = Flights(clock=monotonic)
        self.departed: list[asyncio.Future[int]] = []

    def depart(self) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.departed.append(future)
        return future

    def join(self, *, at_least: int = 0, deadline_s: float = FAR_S) -> asyncio.Task[int | None]:
        return asyncio.create_task(
            self.flights.join(
                b"key",
                self.depart,
                lambda value: value if value >= at_least else None,
                monotonic() + deadline_s,
            )
        )


async def turns(count: int = 5) -> None:
    """Let everything that can run, run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_flight_serves_all_who_join() -> None:
    """A hundred callers, one departure, one answer."""
    tower = Tower()
    callers = [tower.join() for _ in range(100)]
    await turns()
    tower.departed[0].set_result(7)
    assert await asyncio.gather(*callers) == [7] * 100
    assert len(tower.departed) == 1
    assert (len(tower.flights), tower.flights.joined) == (0, 99)


async def test_a_cancelled_leader_harms_nobody() -> None:
    """The caller who started the flight leaves; the others still land."""
    tower = Tower()
    leader, follower = tower.join(), tower.join()
    await turns()
    leader.cancel()
    await turns()
    tower.departed[0].set_result(7)
    assert await follower == 7
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_a_deadline_ends_one_wait_only() -> None:
    """A caller out of time gets a typed error while the flight goes on."""
    tower = Tower()
    hasty, patient = tower.join(deadline_s=0.0), tower.join()
    with pytest.raises(DeadlineExceeded):
        await hasty
    tower.departed[0].set_result(7)
    assert await patient == 7


async def test_an_answer_that_comes_at_the_deadline_is_one() -> None:
    """The flight has landed before the deadline's turn comes: there is nothing left to end."""
    tower, defects = Tower(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
    landed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    landed.set_result(7)
    tower.depart = lambda: landed  # type: ignore[method-assign]
    assert (await tower.join(deadline_s=0.0), defects) == (7, [])


async def test_a_wait_that_is_over_leaves_no_timer() -> None:
    """However far its deadline."""
    tower, loop = Tower(), asyncio.get_running_loop()
    before = len(loop._scheduled)  # type: ignore[attr-defined]
    caller = tower.join()
    await turns()
    tower.departed[0].set_result(7)
    assert await caller == 7
    assert all(timer.cancelled() for timer in loop._scheduled[before:])  # type: ignore[attr-defined]


async def test_who_cannot_depart_leaves_no_flight_behind() -> None:
    """The error is his alone; the next caller departs anew, and joins nobody."""
    tower, depart = Tower(), Tower.depart
    tower.depart = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        await tower.join()
    assert len(tower.flights) == 0
    tower.depart = lambda: depart(tower)  # type: ignore[method-assign]
    caller = tower.join()
    await turns()
    tower.departed[0].set_result(7)
    assert (await caller, tower.flights.joined) == (7, 0)


async def test_who_needs_more_than_the_flight_promises_flies_again() -> None:
    """A waiter whose demand the landed value does not meet starts a load of its own."""
    tower = Tower()
    content, demanding = tower.join(), tower.join(at_least=9)
    await turns()
    tower.departed[0].set_result(7)
    assert await content == 7
    await turns()
    tower.departed[1].set_result(9)
    assert await demanding == 9
    assert len(tower.departed) == 2


async def test_a_demand_that_ones_own_flight_does_not_meet_is_not_met() -> None:
    """It began after the demand was made, so another one would bring no more."""
    tower = Tower()
    caller = tower.join(at_least=100)
    await turns()
    tower.departed[0].set_result(7)
    assert await caller is None
    assert len(tower.departed) == 1


async def test_an_error_reaches_every_waiter_and_is_not_kept() -> None:
    """All who waited get the error; the next caller flies anew."""
    tower = Tower()
    callers = [tower.join() for _ in range(3)]
    await turns()
    tower.departed[0].set_exception(QueryFailed("boom"))
    for caller in callers:
        with pytest.raises(QueryFailed, match="boom"):
            await caller
    again = tower.join()
    await turns()
    tower.departed[1].set_result(1)
    assert await again == 1


async def test_a_flight_that_everybody_left_still_lands() -> None:
    """An abandoned failure is retrieved and does not warn; an abandoned key is free again."""
    tower = Tower()
    caller = tower.join()
    await turns()
    caller.cancel()
    await turns()
    tower.departed[0].set_exception(QueryFailed("nobody is here"))
    await turns()
    assert len(tower.flights) == 0
