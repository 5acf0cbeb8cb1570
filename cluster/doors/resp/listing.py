"""SNAP.KEYS: the keys of a ``store`` cache in order, page by page at one snapshot; of a cache of rows, what is in memory."""

import asyncio
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any, Final

from cluster.config import RespConfig
from cluster.doors.reads import Reads
from cluster.doors.resp.commands import Command, Session, Words, shown
from cluster.doors.resp.frames import array, bulk, integer, mapping, milliseconds
from cluster.doors.resp.words import consistency, following, number, plain_key
from cluster.memory.browsing import Kept, browse
from cluster.requests import BOUNDED, Consistency
from snapring.errors import ArgumentInvalid, CommandInvalid, Overloaded
from snapring.keys import Key

_COUNT: Final = 100
_MOST: Final = 2**31 - 1
"""What fits the node's parameter; it allows fewer."""

_MOST_KEPT: Final = 10_000
_RETRY_AFTER_S: Final = 0.5


class ListingCommands:
    """The command that finds keys."""

    def __init__(self, node: Reads, config: RespConfig) -> None:
        self._node = node
        self._timeout_s = node.config.request_timeout_s
        self._max_reply_bytes = config.write_buffer_bytes
        self._places = config.listings

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            Command(
                name="SNAP.KEYS", arity=-2, summary="Keys of a store cache, or in memory, that begin so",
                run=self.keys, flags=("readonly",),
            )
        ]  # fmt: skip

    def keys(self, session: Session, words: Words) -> Coroutine[Any, Any, bytes]:
        """SNAP.KEYS prefix [AFTER key] [COUNT n] [ATLEAST token | EXACT token | STRONG]."""
        after, most, asked = "", _COUNT, None
        rest = iter(words[2:])
        for word in rest:
            match word.upper():
                case b"AFTER":
                    after = str(plain_key(following(rest, word)))
                case b"COUNT":
                    most = number(following(rest, word), "COUNT", _MOST)
                case _ if asked is not None:
                    raise CommandInvalid("SNAP.KEYS takes one of ATLEAST, EXACT and STRONG")
                case _:
                    asked = consistency(self._node, word, rest)
                    if asked is None:
                        raise CommandInvalid(f"SNAP.KEYS has no option '{shown(word)}'")
        prefix = plain_key(words[1])
        cache = self._node.config.caches.get(prefix.cache)
        if cache is None or cache.kind == "store":
            return self._page(prefix, after, most, asked or BOUNDED, session.protocol)
        if asked is not None:
            raise ArgumentInvalid(
                f"{prefix.cache!r} is a cache of rows: what of it is in memory is of no one snapshot; leave out"
                " ATLEAST, EXACT and STRONG"
            )
        if most > _MOST_KEPT:
            raise ArgumentInvalid(
                f"a listing has 1 to {_MOST_KEPT} keys: ask for more with AFTER the last one"
            )
        return self._kept(prefix, after, most, session.protocol)

    async def _page(self, prefix: Key, after: str, most: int, asked: Consistency, protocol: int) -> bytes:
        deadline_s = monotonic() + self._timeout_s
        page = await self._node.listing(prefix, after, most, asked, deadline_s)
        keys = self._bounded([array((bulk(key), integer(version))) for key, version in page.keys])
        as_of = bulk(self._node.token(page.as_of, page.incarnation))
        return mapping(protocol, (("keys", keys), ("as_of", as_of), ("age_ms", milliseconds(page.age_s))))

    async def _kept(self, prefix: Key, after: str, most: int, protocol: int) -> bytes:
        """What this node has in memory now: no claim about the database."""
        if not self._places:
            raise Overloaded(
                "this node lists its memory for others (resp.listings)", retry_after_s=_RETRY_AFTER_S
            )
        self._places -= 1
        try:
            found = await self._browsed(prefix, after, most)
        finally:
            self._places += 1
        keys = self._bounded([_frame(kept) for kept in found])
        return mapping(protocol, (("keys", keys), ("node", bulk(self._node.config.name))))

    async def _browsed(self, prefix: Key, after: str, most: int) -> list[Kept]:
        steps = browse(self._node.store.index, prefix.canonical, after.encode(), most, monotonic())
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: list[Kept] = end.value
                return found
            await asyncio.sleep(0)

    def _bounded(self, rows: Sequence[bytes]) -> bytes:
        frame = array(rows)
        if len(frame) > self._max_reply_bytes:
            raise CommandInvalid(
                f"the reply of {len(frame)} bytes would exceed resp.write_buffer, {self._max_reply_bytes}"
                " bytes: ask for a smaller COUNT"
            )
        return frame


def _frame(kept: Kept) -> bytes:
    state = bulk("open" if kept.open else "ended")
    return array((bulk(kept.key), milliseconds(kept.age_s), state, integer(kept.bytes)))
