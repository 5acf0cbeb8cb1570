"""Several keys at one snapshot of the database.

Each answer alone is true at a snapshot of its own. The newest of them is asked of all the others: an entry that
nothing has touched since is true there as well, so that is mostly one more look into memory. A key that cannot be
had there has changed since: it is read anew, and what it is true at becomes the newest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Final, TypeVar

from cluster.requests import Exactly, Reply, State
from snapring.errors import SnapshotUnavailable, TokenForeign

ROUNDS: Final = 4
"""How often the keys are brought together before their reader hears that they change too fast."""

T = TypeVar("T")

Read = Callable[[int, Exactly | None], Awaitable[Reply]]
"""Reads the nth key: at exactly a snapshot, or as it was asked for."""


async def at_one_snapshot(read: Read, count: int) -> Sequence[Reply]:
    """The answers to ``count`` keys, at least one, all with the same ``as_of`` and incarnation.

    Raises what ``read`` raises, and `SnapshotUnavailable` if they cannot be brought together.
    """
    replies = list(await concurrently(read(n, None) for n in range(count)))
    for _ in range(ROUNDS):
        newest = reduce(_newer, replies)
        apart = [n for n, reply in enumerate(replies) if _place(reply) != _place(newest)]
        if not apart:
            return replies
        at = Exactly(newest.as_of, newest.incarnation)
        for n, reply in zip(apart, await concurrently(_exactly(read, n, at) for n in apart), strict=True):
            replies[n] = reply
    raise SnapshotUnavailable(
        "the keys change faster than they can be read together: retry, or ask for fewer"
    )


async def alike(read: Read, count: int, clock: Callable[[], float]) -> Sequence[Reply]:
    """The same, all with one age and state too: the oldest, and STALE if one of them is."""
    received_s = [0.0] * count

    async def timed(n: int, at: Exactly | None) -> Reply:
        reply = await read(n, at)
        received_s[n] = clock()
        return reply

    replies = await at_one_snapshot(timed, count)
    now = clock()
    age_s = max(now - at_s + reply.age_s for at_s, reply in zip(received_s, replies, strict=True))
    stale = any(reply.state is State.STALE for reply in replies)
    state = State.STALE if stale else State.FRESH
    return [replace(reply, age_s=age_s, state=state) for reply in replies]


async def _exactly(read: Read, n: int, at: Exactly) -> Reply:
    """The nth key there, or at a place of its own where it cannot be had there."""
    try:
        return await read(n, at)
    except (SnapshotUnavailable, TokenForeign):
        return await read(n, None)


def _newer(one: Reply, other: Reply) -> Reply:
    """Of two incarnations the later answer is of the newer, as far as anyone can tell."""
    return other if one.incarnation != other.incarnation or one.as_of.within(other.as_of) else one


def _place(reply: Reply) -> tuple[int, str]:
    return reply.incarnation, str(reply.as_of)


async def concurrently(reading: Iterable[Awaitable[T]]) -> Sequence[T]:
    """What each of them brings. The first that fails ends the others."""
    tasks = [asyncio.ensure_future(each) for each in reading]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
