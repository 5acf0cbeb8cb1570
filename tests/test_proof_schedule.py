"""When faults happen: as the seed says, each of them, with calm between in which the node must recover."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.proof.faults import FAULTS, Fault, FaultFailed, Needs, needs_of
from scripts.proof.faults.blocking import in_full
from scripts.proof.ground import Ground
from scripts.proof.proxy import HOST
from scripts.proof.schedule import CALM_S, Event, NotRecovered, Step, answering, carry_out, plan, sides

NOWHERE: Final = cast("Ground", None)
ALL: Final = tuple(FAULTS.values())
HELLO: Final = b"%0\r\n"


def fault(name: str, run: Callable[..., Awaitable[str]], needs: Needs | None = None) -> Fault:
    return Fault(name=name, summary="", run=run, lasts_s=0.0, needs=needs or Needs())


async def harmless(*_: object) -> str:
    return "nothing broke"


def steps(*faults: Fault) -> list[Step]:
    """One after another without calm."""
    return [Step(calm_s=0.0, fault=fault) for fault in faults]


@asynccontextmanager
async def answers(*replies: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A node that greets, and gives one of ``replies`` to each connection, the last for ever; its port, what it gave."""
    left, given = list(replies), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(HELLO)
        await reader.read(1 << 16)
        given.append(left.pop(0) if len(left) > 1 else left[0])
        writer.write(given[-1])
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1], given


@given(st.integers(0, 2**32))
def test_two_minutes_hold_every_fault(seed: int) -> None:
    """Each at least once, in an order that the seed decides, and not longer than that."""
    planned = [plan(faults, 120.0, Random(seed)) for faults in sides(ALL, apart=True)]
    assert {step.fault.name for one in planned for step in one} == FAULTS.keys()
    for one in planned:
        assert sum(step.calm_s + step.fault.lasts_s for step in one) <= 120.0 - CALM_S
    assert planned == [plan(faults, 120.0, Random(seed)) for faults in sides(ALL, apart=True)]


def test_a_node_by_itself_suffers_one_thing_after_another() -> None:
    """In two minutes everything that can befall it."""
    alone = [fault for fault in ALL if fault.needs.nodes == 1]
    assert sides(alone, apart=False) == [alone]
    assert {step.fault.name for step in plan(alone, 120.0, Random(1))} == {fault.name for fault in alone}


@given(st.integers(0, 2**32), st.floats(0.0, 600.0))
def test_a_plan_is_calm_between_faults_and_fits(seed: int, seconds: float) -> None:
    """However short or long the run is."""
    planned = plan(ALL, seconds, Random(seed))
    assert all(step.calm_s >= CALM_S for step in planned)
    assert sum(step.calm_s + step.fault.lasts_s for step in planned) <= max(0.0, seconds - CALM_S) + 1e-6


def test_other_seeds_plan_otherwise() -> None:
    """So many runs meet many orders."""
    assert plan(ALL, 120.0, Random(1)) != plan(ALL, 120.0, Random(2))
    assert plan((), 120.0, Random(1)) == []


def test_needs_add_up() -> None:
    """The stage suits every fault that was asked for."""
    settings, high = Needs(settings={"fsync": "on"}, clock=True), Needs(epoch=3)
    together = needs_of([fault("a", harmless, settings), fault("b", harmless, high)])
    assert together == Needs(settings={"fsync": "on"}, epoch=3, clock=True)
    assert needs_of([]) == Needs()


async def test_notes_what_happened_once_the_node_recovered() -> None:
    """In order, each mended before the next begins."""
    events: list[Event] = []
    recoveries = 0

    async def recovery() -> None:
        nonlocal recoveries
        assert len(events) == recoveries
        recoveries += 1

    two = steps(fault("first", harmless), fault("second", harmless))
    await carry_out(NOWHERE, two, events, rng=Random(1), recovery=recovery)
    assert [(event.name, event.detail) for event in events] == [
        ("first", "nothing broke"),
        ("second", "nothing broke"),
    ]
    assert events[0].began_s <= events[0].ended_s <= events[1].began_s


async def test_a_node_that_does_not_recover_ends_the_run() -> None:
    """With the fault's name, and what the node last said."""

    async def never() -> None:
        raise NotRecovered("it is gone")

    with pytest.raises(NotRecovered, match=r"after tried \(nothing broke\): it is gone"):
        await carry_out(NOWHERE, steps(fault("tried", harmless)), [], rng=Random(1), recovery=never)


async def test_a_fault_that_cannot_be_carried_out_ends_the_run() -> None:
    """A run that claims a fault which did not happen would prove too little."""

    async def fails(*_: object) -> str:
        raise FaultFailed("no standby")

    async def at_once() -> None:
        pass

    with pytest.raises(FaultFailed, match="no standby"):
        await carry_out(NOWHERE, steps(fault("tried", fails)), [], rng=Random(1), recovery=at_once)


async def test_recovery_is_a_strong_answer() -> None:
    """Errors are asked again, whatever is no error counts."""
    async with answers(b"-UNAVAILABLE wait\r\n", b"$-1\r\n", b"$-1\r\n") as (port, given):
        await answering(port, b"item:1")
        assert given == [b"-UNAVAILABLE wait\r\n", b"$-1\r\n"]


async def test_a_node_that_another_fault_has_is_excused() -> None:
    """It need not answer meanwhile."""
    async with answers(b"-UNAVAILABLE for ever\r\n") as (port, given):
        await answering(port, b"item:1", excused=lambda: len(given) == 2)
        assert len(given) == 2


async def test_no_recovery_tells_what_the_node_said() -> None:
    """Its last error, or that nothing listens."""
    async with answers(b"-UNAVAILABLE for ever\r\n") as (port, _):
        with pytest.raises(NotRecovered, match="UNAVAILABLE for ever"):
            await answering(port, b"item:1", 0.1)
    with pytest.raises(NotRecovered, match="Connect call failed"):
        await answering(port, b"item:1", 0.1)


async def test_a_cancelled_fault_leaves_no_call_half_done() -> None:
    """A server that is being started has started before anyone stops it."""
    began, go_on = threading.Event(), threading.Event()
    done = []

    def slow() -> None:
        began.set()
        go_on.wait()
        done.append(True)

    task = asyncio.create_task(in_full(slow))
    await asyncio.to_thread(began.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done
