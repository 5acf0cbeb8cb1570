"""A node as the doors see it for a traced request: what each read comes to is told.

It finds and forwards nothing by itself, so that every read comes through `try_read` or `read`.
"""

from collections.abc import Mapping, Sequence

from cluster.doors.reads import Reads
from cluster.requests import Consistency, Listing, Reply
from cluster.tracing.seam import current
from cluster.writes import Deed, Written
from snapring.keys import Key


class TracedReads:
    """``reads``, told of to the traced request that the caller works for."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.config = reads.config
        self.store = reads.store
        self.timeline = reads.timeline
        self.fresh_until_s = float("-inf")
        self.peek = reads.peek
        self.token = reads.token
        self.ticket = reads.ticket
        self.written_token = reads.written_token
        self.at_least = reads.at_least
        self.exactly = reads.exactly
        self.snapshot = reads.snapshot

    def __repr__(self) -> str:
        return f"<TracedReads of {self._reads!r}>"

    def try_read(self, key: Key, consistency: Consistency) -> Reply | None:
        """See `Reads`."""
        _about(key)
        reply = self._reads.try_read(key, consistency)
        if reply is not None and (traced := current()) is not None:
            traced.found(reply, hit=True, source=reply.source.value)
        return reply

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """See `Reads`."""
        _about(key)
        reply = await self._reads.read(key, consistency, deadline_s)
        if (traced := current()) is not None:
            traced.found(reply, hit=False, source=reply.source.value)
        return reply

    def hit(self, key: bytes, now_s: float | None = None) -> None:
        """Nothing is found by itself."""

    def forward(self, key: bytes) -> None:
        """Nothing comes by itself."""

    async def write(self, deeds: Sequence[Deed], deadline_s: float) -> Written:
        """See `Reads`."""
        for deed in deeds:
            _about(deed.key)
        return await self._reads.write(deeds, deadline_s)

    async def listing(
        self, prefix: Key, after: str, most: int, consistency: Consistency, deadline_s: float
    ) -> Listing:
        """See `Reads`."""
        _about(prefix)
        return await self._reads.listing(prefix, after, most, consistency, deadline_s)

    def describe(self) -> Mapping[str, Mapping[str, object]]:
        """See `Reads`."""
        return self._reads.describe()


def _about(key: Key) -> None:
    if (traced := current()) is not None:
        traced.about(key)
