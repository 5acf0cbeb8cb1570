"""What time of day it is, and how many transactions there have been: neither may matter."""

import asyncio
import time
from collections.abc import Mapping
from random import Random
from typing import Final

from scripts.demonstration.resp import Resp
from scripts.proof.clock import WallClock
from scripts.proof.faults.fault import FaultFailed
from scripts.proof.faults.operator import ask, next_xid, operator
from scripts.proof.ground import Ground
from scripts.proof.nodes import NodeProcess
from scripts.proof.proxy import HOST

EPOCH: Final = 3
"""The high half of the xids that a server begins with whose xids are to be high."""

_STEPS_S: Final = (-86_400.0, -3_600.0, -3.0, 3.0, 3_600.0, 86_400.0)
_STEPS: Final = 3
_TOLERANCE_S: Final = 1.0


async def stepped(ground: Ground, rng: Random, *, longest_s: float = 4.0) -> str:
    """Step the wall clock of the nodes and of PostgreSQL to and fro, and at last back."""
    if ground.clock is None:
        raise FaultFailed("the ground was made without a clock to step")
    steps = {step_s: rng.uniform(0.0, 2 * longest_s / _STEPS) for step_s in rng.sample(_STEPS_S, _STEPS)}
    async with ground.struck(rng) as node:
        await _step(ground, ground.clock, node, steps)
    return f"off by {', '.join(f'{step_s:+g}' for step_s in steps)} s in turn, {ground.clock.how}"


async def _step(ground: Ground, clock: WallClock, node: NodeProcess, pauses_s: Mapping[float, float]) -> None:
    try:
        for step_s, pause_s in pauses_s.items():
            clock.step(step_s)
            _check(node.name, await _node_s(node), step_s)
            if clock.preloaded:
                _check("PostgreSQL", await _postgres_s(ground), step_s)
            await asyncio.sleep(pause_s)
    finally:
        clock.step(0.0)


async def high(ground: Ground, rng: Random) -> str:  # noqa: ARG001 - as every fault
    """Nothing happens now: the server began with xids that 32 bits do not hold."""
    async with operator(ground.dsn()) as connection:
        xid = await next_xid(connection)
    if xid < 1 << 32:
        raise FaultFailed(f"the next xid is {xid}, which 32 bits hold")
    return f"xids have reached {xid}"


async def _postgres_s(ground: Ground) -> float:
    async with operator(ground.dsn()) as connection:
        return float(await ask(connection, "SELECT extract(epoch FROM clock_timestamp())"))


async def _node_s(node: NodeProcess) -> float:
    connection = await Resp.open(HOST, node.port)
    try:
        (reply,) = await connection.ask([(b"TIME",)])
    finally:
        await connection.close()
    assert isinstance(reply, list), f"TIME is answered by a list, not {reply!r}"
    return int(reply[0]) + int(reply[1]) / 1e6


def _check(whose: str, time_s: float, step_s: float) -> None:
    off_s = time_s - time.time()
    if abs(off_s - step_s) > _TOLERANCE_S:
        raise FaultFailed(f"the clock of {whose} is off by {off_s:g} s instead of {step_s:g} s")
