"""What callers notice of an outage: PostgreSQL is stopped for a while under steady reads.

One caller reads keys that stay within their staleness bound, before the outage and during it; others read
keys that are not in memory, all the time. The node reaches PostgreSQL through a proxy that counts
connections; while the server is down, the proxy hangs up on whoever comes.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from math import ceil
from statistics import median
from typing import Any, Final

from hiredis import ReplyError

from scripts.benchmarks.breakable import ROWS, Breakable, breakable, node
from scripts.demonstration.node_info import parsed
from scripts.demonstration.resp import Resp
from scripts.proof.proxy import HOST

OUTAGE_S: Final = 30.0
OTHERS: Final = 8

_CACHES: Final = {"young": {"max_staleness": "1d"}, "plain": {}}
_SLICE_S: Final = 1.0
_PAUSE_S: Final = 0.002
_SETTLE_S: Final = 2.0
_LOOK_S: Final = 0.002
_REFUSED: Final = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Asked:
    """One read of a key that is not in memory; times are monotonic."""

    sent_s: float
    answered_s: float
    refused: bool


async def run(seconds: float | None = None) -> list[dict[str, Any]]:
    """The figures ``outage_hits_p99_ratio``, ``outage_refusal_ms`` and ``outage_knocks_per_s``."""
    return await _measure(seconds or OUTAGE_S)


async def _measure(outage_s: float) -> list[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(breakable())
        await stack.enter_async_context(node(ground, _CACHES))
        await _fill(ground)
        hits: list[tuple[float, float]] = []
        others: list[Asked] = []
        asking = await _traffic(ground, hits, others)
        await asyncio.sleep(_SETTLE_S)
        before_s = time.monotonic()
        await asyncio.sleep(outage_s)
        down_s = time.monotonic()
        opening = asyncio.create_task(_until_open(ground))
        await asyncio.to_thread(ground.server.stop)
        opened_s = await opening
        await asyncio.sleep(outage_s - (time.monotonic() - down_s))
        up_s = time.monotonic()
        for task in asking:
            task.cancel()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        broken = [end for end in ended if not isinstance(end, asyncio.CancelledError)]
        if broken:
            raise RuntimeError(f"a read within its bound was not answered from memory: {broken[0]!r}")
    return [
        _hits_figure(hits, before_s, down_s, opened_s, up_s),
        _refusal_figure(others, opened_s),
        _knocks_figure(ground.turnstile.knocks, down_s, opened_s, up_s),
    ]


async def _fill(ground: Breakable) -> None:
    client = await Resp.open(HOST, ground.port)
    replies = await client.ask([(b"GET", b"young:%d" % item) for item in range(1, ROWS + 1)])
    assert all(isinstance(reply, bytes) for reply in replies), "the node does not load"
    await client.close()


async def _traffic(
    ground: Breakable, hits: list[tuple[float, float]], others: list[Asked]
) -> list[asyncio.Task[None]]:
    unknown = count(ROWS + 1)
    clients = [await Resp.open(HOST, ground.port) for _ in range(OTHERS + 1)]
    readers = [_read_cached(clients[0], hits)]
    readers += [_read_unknown(client, unknown, others) for client in clients[1:]]
    return [asyncio.create_task(reader) for reader in readers]


async def _read_cached(client: Resp, hits: list[tuple[float, float]]) -> None:
    """One hit after the other: when, and how long it took."""
    for turn in count():
        sent_s = time.monotonic()
        (reply,) = await client.ask([(b"GET", b"young:%d" % (turn % ROWS + 1))])
        hits.append((sent_s, time.monotonic() - sent_s))
        if not isinstance(reply, bytes):
            raise TypeError(f"{reply!r}")
        await asyncio.sleep(_PAUSE_S)


async def _read_unknown(client: Resp, unknown: "count[int]", others: list[Asked]) -> None:
    while True:
        sent_s = time.monotonic()
        (reply,) = await client.ask([(b"GET", b"plain:%d" % next(unknown))])
        refused = isinstance(reply, ReplyError) and str(reply).startswith(_REFUSED)
        others.append(Asked(sent_s, time.monotonic(), refused))
        await asyncio.sleep(_PAUSE_S * OTHERS)


async def _until_open(ground: Breakable) -> float:
    """When the node last said that its breaker was closed; at most a look before it opened."""
    client = await Resp.open(HOST, ground.port)
    while True:
        asked_s = time.monotonic()
        (answer,) = await client.ask([(b"INFO",)])
        if parsed(answer)["breaker_state"] != "closed":
            await client.close()
            return asked_s
        await asyncio.sleep(_LOOK_S)


def _hits_figure(
    hits: Sequence[tuple[float, float]], before_s: float, down_s: float, opened_s: float, up_s: float
) -> dict[str, Any]:
    before, during = _p99_ms(hits, before_s, down_s), _p99_ms(hits, opened_s, up_s)
    return {
        "figure": "outage_hits_p99_ratio",
        "value": round(during / before, 3),
        "at_most": 1.25,
        "aim": 1.0,
        "detail": f"hits within their staleness bound, p99 {during:.2f} ms in the outage, {before:.2f} ms before "
        f"it; median of slices of {_SLICE_S:g} s",
    }


def _refusal_figure(others: Sequence[Asked], opened_s: float) -> dict[str, Any]:
    waits_ms = sorted(
        (asked.answered_s - max(asked.sent_s, opened_s)) * 1e3
        for asked in others
        if asked.refused and asked.answered_s >= opened_s
    )
    first_ms = min(asked.answered_s - opened_s for asked in others if asked.answered_s >= opened_s) * 1e3
    return {
        "figure": "outage_refusal_ms",
        "value": round(_rank(waits_ms, 0.99), 2),
        "at_most": 100.0,
        "aim": 10.0,
        "detail": f"p99 of {len(waits_ms):,} refusals, counted from the breaker's opening or the request, whichever "
        f"came later; the first {first_ms:.1f} ms after the opening, the slowest {waits_ms[-1]:.1f} ms",
    }


def _knocks_figure(knocks: Sequence[float], down_s: float, opened_s: float, up_s: float) -> dict[str, Any]:
    outage = [knock for knock in knocks if opened_s <= knock < up_s]
    densest = max(sum(since <= knock < since + 1.0 for knock in outage) for since in outage)
    before = sum(down_s <= knock < opened_s for knock in knocks)
    return {
        "figure": "outage_knocks_per_s",
        "value": round(len(outage) / (up_s - opened_s), 2),
        "at_most": 2.0,
        "aim": 2.0,
        "detail": f"{len(outage)} connection attempts in {up_s - opened_s:.1f} s, at most {densest} within a second; "
        f"{before} before the breaker opened, {(opened_s - down_s) * 1e3:.0f} ms after the server was told to stop",
    }


def _p99_ms(hits: Sequence[tuple[float, float]], since_s: float, until_s: float) -> float:
    slices: dict[int, list[float]] = {}
    for sent_s, took_s in hits:
        if since_s <= sent_s < until_s:
            slices.setdefault(int((sent_s - since_s) / _SLICE_S), []).append(took_s)
    return median(_rank(sorted(took), 0.99) for took in slices.values()) * 1e3


def _rank(ascending: Sequence[float], fraction: float) -> float:
    return ascending[ceil(len(ascending) * fraction) - 1]
