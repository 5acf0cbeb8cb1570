"""Steady reads through several nodes while a writer changes what they read, each reply judged against the truth.

The writer counts items up and remembers by which transactions: what an item's count is at any snapshot follows
from them, so a reply is right or wrong at the snapshot that it names. Items are read in turn; and soon after they
were written, so that each write causes one load.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from time import monotonic
from typing import Any, Final, Self

import hiredis
import msgpack
import psycopg

from cluster.snapshots import Snapshot
from scripts.benchmarks.several import Several, rise
from scripts.demonstration.resp import Resp
from scripts.proof.naming import Named, named

READS_PER_S: Final = 1_000
WRITES_PER_S: Final = 20
CALLERS: Final = 24

_HOST: Final = "127.0.0.1"
_COUNT_UP: Final = b"UPDATE items SET n = n + 1 WHERE id = %s RETURNING pg_current_xact_id()::text"
_LATE_S: Final = 1.0
_SEEN_S: Final = 0.2
"""After how long the nodes have polled a change."""
_READ_S: Final = 120.0
_LOOK_S: Final = 0.5
_ATTEMPTS: Final = 3
_STOPPING: Final = "NODE_STOPPING"


@dataclass(frozen=True, slots=True)
class Read:
    """One reply: that ``item`` had the count ``n`` as of the token ``as_of``."""

    item: int
    n: int
    as_of: bytes


@dataclass(slots=True, kw_only=True)
class Period:
    """What happened in a while: ``loads`` are all nodes', ``longest_s`` is of all requests.

    ``asked_again`` counts the requests that an excused node did not answer, and another one did.
    """

    loads: int = 0
    writes: int = 0
    reads: list[Read] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    asked_again: int = 0
    longest_s: float = 0.0


def caused(period: Period, control: Period) -> float:
    """The loads of ``period`` beyond those that its writes alone cause, which ``control`` tells of."""
    return period.loads - control.loads * period.writes / max(1, control.writes)


class Traffic:
    """Callers of all nodes of ``ground``, and a writer, for as long as the context lasts.

    A caller whose node is `excuse`\\ d, and hangs up or says that it stops, asks another one.
    """

    def __init__(self, ground: Several, rng: Random) -> None:
        self._ground = ground
        self._rng = rng
        items = rng.sample(range(ground.rows), ground.rows)
        self._turns = cycle(items)
        self._items = items
        self._doors = [member.port for member in ground.members.values()]
        self._changed: deque[tuple[float, int]] = deque()
        self._excused: set[int] = set()
        self._written: defaultdict[int, list[int]] = defaultdict(list)
        self._now = Period()
        self._ending = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write())]
        self._tasks += [asyncio.create_task(self._call(number)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    @property
    def sweep_s(self) -> float:
        """How long it takes to read every item once."""
        return len(self._items) / (READS_PER_S - WRITES_PER_S)

    def spread(self, *names: str) -> None:
        """From its next request on, each caller asks one of ``names``."""
        self._doors = [self._ground.members[name].port for name in names]

    def excuse(self, name: str) -> None:
        """``name`` is about to end: that it does not answer is no failure."""
        self._excused.add(self._ground.members[name].port)

    async def during(
        self, seconds: float, *deeds: Coroutine[Any, Any, None], items: Iterable[int] = ()
    ) -> Period:
        """What happens in ``seconds``, or for as long as ``deeds`` take and one of ``items`` has not been read.

        Raises what breaks the traffic, and `TimeoutError` if that is very long.
        """
        before = await self._ground.counters()
        period = self._now = Period()
        passing = asyncio.create_task(_all(asyncio.sleep(seconds), *deeds, _read(period, frozenset(items))))
        await asyncio.wait([passing, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                passing.cancel()
                task.result()
        await passing
        after = await self._ground.counters()
        self._now = Period()
        period.loads = sum(rise(before.get(name, {}), counted)["loads"] for name, counted in after.items())
        return period

    def wrong(self, *periods: Period) -> list[Read]:
        """The replies that were not true at the snapshots that they name. Ask once the context has ended."""
        assert self._ending, "the writer may not yet know of a write that a reader has seen"
        reads = [read for period in periods for read in period.reads]
        places = {token: named(token, self._ground.codec) for token in {read.as_of for read in reads}}
        return [read for read in reads if not self._is_true(read, places[read.as_of])]

    def _is_true(self, read: Read, place: Named | str) -> bool:
        return (
            isinstance(place, Named)
            and isinstance(place.position, Snapshot)
            and read.n == sum(map(place.position.sees, self._written[read.item]))
        )

    async def _write(self) -> None:
        pace = _Pace(WRITES_PER_S)
        async with await psycopg.AsyncConnection.connect(
            self._ground.server.dsn(), autocommit=True
        ) as writer:
            while not self._ending:
                item = self._rng.choice(self._items)
                ((xid,),) = await (await writer.execute(_COUNT_UP, [item])).fetchall()
                self._written[item].append(int(xid))
                self._changed.append((monotonic() + _SEEN_S, item))
                self._now.writes += 1
                await pace.turn()

    async def _call(self, number: int) -> None:
        caller, pace = _Caller(number), _Pace(READS_PER_S / CALLERS)
        await asyncio.sleep(number / READS_PER_S)
        while not self._ending:
            period, item, sent_s = self._now, self._item(), monotonic()
            reply = await self._answer(caller, item, period)
            period.longest_s = max(period.longest_s, monotonic() - sent_s)
            if isinstance(reply, dict) and reply[b"value"] is not None:
                period.reads.append(Read(item, msgpack.unpackb(reply[b"value"])["n"], reply[b"as_of"]))
            else:
                period.failures.append(f"item {item}: {reply!r}")
            await pace.turn()
        await caller.leave()

    def _item(self) -> int:
        """Whose turn it is: one that the nodes must know to have changed, else the next of all."""
        if self._changed and self._changed[0][0] <= monotonic():
            return self._changed.popleft()[1]
        return next(self._turns)

    async def _answer(self, caller: "_Caller", item: int, period: Period) -> object:
        reply: object = None
        for _ in range(_ATTEMPTS):
            reply = await caller.ask(self._doors, item)
            if not (caller.door in self._excused and _is_no_answer(reply)):
                break
            period.asked_again += 1
            await caller.leave()
            caller.turned_away += 1
        return reply


async def _read(period: Period, items: frozenset[int]) -> None:
    async with asyncio.timeout(_READ_S):
        while not items <= {read.item for read in period.reads}:  # noqa: ASYNC110 -- seldom, on a slow machine
            await asyncio.sleep(_LOOK_S)


async def _all(*deeds: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*deeds)


class _Caller:
    """One connection at a time, to the node whose turn it is by ``number`` and how often one had to go elsewhere."""

    def __init__(self, number: int) -> None:
        self.door = 0
        self.turned_away = 0
        self._number = number
        self._client: Resp | None = None

    async def ask(self, doors: Sequence[int], item: int) -> object:
        """The reply, or the error that the connection met with."""
        door = doors[(self._number + self.turned_away) % len(doors)]
        try:
            if self._client is None or door != self.door:
                await self.leave()
                self.door = door
                self._client = await Resp.open(_HOST, door)
            (reply,) = await self._client.ask([(b"SNAP.GET", b"item:%d" % item)])
        except OSError as error:
            await self.leave()
            return error
        return reply

    async def leave(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(OSError):  # the node was faster
                await client.close()


class _Pace:
    """So many turns a second; who is late by more than `_LATE_S` does not catch up."""

    def __init__(self, per_s: float) -> None:
        self._each_s = 1 / per_s
        self._next_s = monotonic()

    async def turn(self) -> None:
        """Wait for the next one."""
        self._next_s = max(self._next_s + self._each_s, monotonic() - _LATE_S)
        await asyncio.sleep(max(0.0, self._next_s - monotonic()))


def _is_no_answer(reply: object) -> bool:
    return isinstance(reply, OSError) or (
        isinstance(reply, hiredis.ReplyError) and str(reply).startswith(_STOPPING)
    )
