"""The readers: several connections, each pipelining reads; and the queue of replies still to be judged."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import hiredis

from scripts.demonstration.checker import Observation
from scripts.demonstration.resp import Resp
from scripts.demonstration.tally import Tally
from scripts.demonstration.workload import Read, Reads

_PLAIN_EVERY: Final = 10
_RETRY_S: Final = 0.1


@dataclass(slots=True)
class Unjudged:
    """Replies that wait for the journal. Bounded: when it is full, readers wait; none is dropped."""

    most: int
    _replies: deque[Observation] = field(default_factory=deque)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._replies)

    async def put(self, replies: Sequence[Observation]) -> None:
        """Add ``replies``, once there is room."""
        while len(self._replies) >= self.most:
            self._room.clear()
            await self._room.wait()
        self._replies.extend(replies)

    def take(self) -> list[Observation]:
        """Everything that waits."""
        taken = list(self._replies)
        self._replies.clear()
        self._room.set()
        return taken


class Reader:
    """One connection that keeps ``depth`` reads in flight, until `stop`.

    Nine in ten are SNAP.GET, whose replies name their snapshot and go to ``unjudged``; the rest plain GET.
    """

    def __init__(self, reads: Reads, unjudged: Unjudged, tally: Tally, *, depth: int) -> None:
        self._reads = reads
        self._unjudged = unjudged
        self._tally = tally
        self._depth = depth
        self._stopping = False

    def stop(self) -> None:
        """Let `run` return after the round it is in."""
        self._stopping = True

    async def run(self, host: str, port: int) -> None:
        """Read on and on; connect again when the connection breaks."""
        while not self._stopping:
            try:
                connection = await Resp.open(host, port)
                try:
                    while not self._stopping:
                        await self._round(connection)
                finally:
                    await connection.close()
            except OSError as error:
                self._tally.errors[type(error).__name__] += 1
                await asyncio.sleep(_RETRY_S)

    async def _round(self, connection: Resp) -> None:
        reads = self._reads.take(self._depth)
        plain = range(0, self._depth, _PLAIN_EVERY)
        commands = [(b"GET" if at in plain else b"SNAP.GET", read.key) for at, read in enumerate(reads)]
        replies = await connection.ask(commands)
        received_s = time.time()
        seen = []
        for at, (read, reply) in enumerate(zip(reads, replies, strict=True)):
            if isinstance(reply, hiredis.ReplyError):
                self._tally.errors[str(reply).split(" ", 1)[0]] += 1
            elif at in plain:
                self._tally.plain_reads += 1
            else:
                source, observation = observed(read, reply, received_s)
                self._tally.sources[source] += 1
                seen.append(observation)
        await self._unjudged.put(seen)


def observed(read: Read, reply: object, received_s: float) -> tuple[str, Observation]:
    """What a full reply says: its source, and the rest for the checker."""
    assert isinstance(reply, dict), f"not a full reply: {reply!r}"
    observation = Observation(
        read=read,
        value=reply[b"value"],
        as_of=reply[b"as_of"].decode(),
        age_s=float(reply[b"age_ms"]) / 1e3,
        received_s=received_s,
    )
    return reply[b"source"].decode(), observation
