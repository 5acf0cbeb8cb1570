"""When what goes wrong: faults drawn from a seed, each mended, and calm between them in which the nodes recover.

Where there are several nodes, what befalls PostgreSQL and what befalls the nodes happens side by side, each after a
plan of its own. A plan is the same for the same faults, length and seed. How long a fault takes is its own affair:
a run whose faults are slow lasts longer than planned, it never leaves one of them out.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Final

import hiredis

from scripts.demonstration.resp import Resp
from scripts.proof.faults import Befalls, Fault, FaultFailed
from scripts.proof.ground import Ground
from scripts.proof.proxy import HOST

CALM_S: Final = 1.0
"""The shortest calm before a fault, and after the last."""

_RECOVERS_S: Final = 0.5
_RECOVERY_S: Final = 30.0
_ATTEMPT_S: Final = 2.0
_PATIENCE_S: Final = 90.0
_AGAIN_S: Final = 0.02


class NotRecovered(RuntimeError):
    """A fault was mended, and the node did not come round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fault, after a calm."""

    calm_s: float
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fault that was carried out, by the monotonic clock; ``recovered_s``: until the node answered again."""

    name: str
    began_s: float
    ended_s: float
    recovered_s: float
    detail: str


def sides(faults: Sequence[Fault], *, apart: bool) -> list[list[Fault]]:
    """``faults`` by what they are about, which may happen at the same time if they are ``apart``."""
    if not apart:
        return [list(faults)]
    return [[fault for fault in faults if fault.befalls is one] for one in Befalls]


def plan(faults: Sequence[Fault], seconds: float, rng: Random) -> list[Step]:
    """Every fault once, and again at random as long as there is time, or those for which there is.

    They take about ``seconds`` together with the recovery and the calm after each.
    """
    drawn, left_s = [], seconds - CALM_S
    for fault in [*rng.sample(faults, len(faults)), *rng.choices(faults, k=_most(faults, seconds))]:
        takes_s = fault.lasts_s + _RECOVERS_S + CALM_S
        if takes_s <= left_s:
            drawn.append(fault)
            left_s -= takes_s
    shares = [rng.random() for _ in range(len(drawn) + 1)]
    longer_s = [left_s * share / sum(shares) for share in shares]
    return [
        Step(calm_s=CALM_S + extra_s, fault=fault) for fault, extra_s in zip(drawn, longer_s, strict=False)
    ]


async def carry_out(
    ground: Ground,
    steps: Sequence[Step],
    events: list[Event],
    *,
    rng: Random,
    recovery: Callable[[], Awaitable[None]],
) -> None:
    """Let one fault after another happen, and note each in ``events``.

    ``recovery`` returns when the node has recovered from one; see `answering`. Raises `FaultFailed`, `NotRecovered`.
    """
    for step in steps:
        await asyncio.sleep(step.calm_s)
        began_s = monotonic()
        detail = await _run(step.fault, ground, rng)
        ended_s = monotonic()
        try:
            await recovery()
        except NotRecovered as error:
            raise NotRecovered(f"after {step.fault.name} ({detail}): {error}") from error
        events.append(
            Event(
                name=step.fault.name,
                began_s=began_s,
                ended_s=ended_s,
                recovered_s=monotonic() - ended_s,
                detail=detail,
            )
        )


async def answering(
    port: int, key: bytes, within_s: float = _RECOVERY_S, *, excused: Callable[[], bool] = lambda: False
) -> None:
    """Wait until the node on ``port`` gives a strong answer on ``key``, or is ``excused``. Raises `NotRecovered`."""
    deadline_s, answer = monotonic() + within_s, "nothing"
    while monotonic() < deadline_s and not excused():
        try:
            async with asyncio.timeout(_ATTEMPT_S):
                answer = await _strong_answer(port, key)
            if not answer:
                return
        except (OSError, TimeoutError) as error:
            answer = str(error) or "nothing within the time of a request"
        await asyncio.sleep(_AGAIN_S)
    if excused():
        return
    raise NotRecovered(f"no strong read was answered within {within_s:g} s; the node said: {answer}")


async def _strong_answer(port: int, key: bytes) -> str:
    """Ask; the error that came back, empty if the answer did."""
    connection = await Resp.open(HOST, port)
    try:
        (reply,) = await connection.ask([(b"SNAP.GET", key, b"STRONG")])
    finally:
        with contextlib.suppress(OSError):
            await connection.close()
    return str(reply) if isinstance(reply, hiredis.ReplyError) else ""


async def _run(fault: Fault, ground: Ground, rng: Random) -> str:
    limit_s = fault.lasts_s + _PATIENCE_S
    try:
        async with asyncio.timeout(limit_s):
            return await fault.run(ground, rng)
    except TimeoutError as error:
        raise FaultFailed(f"{fault.name}: {error or f'not over within {limit_s:g} s'}") from error


def _most(faults: Sequence[Fault], seconds: float) -> int:
    return int(seconds / CALM_S) if faults else 0
