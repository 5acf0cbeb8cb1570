"""SNAP.KEYS: the keys of a ``store`` cache in order, page by page at one snapshot."""

from collections.abc import Coroutine
from time import monotonic
from typing import Any, Final

from cluster.config import RespConfig
from cluster.doors.reads import Reads
from cluster.doors.resp.commands import Command, Session, Words, shown
from cluster.doors.resp.frames import array, bulk, integer, mapping, milliseconds
from cluster.doors.resp.words import consistency, following, number, plain_key
from cluster.requests import BOUNDED, Consistency
from snapring.errors import CommandInvalid

_COUNT: Final = 100
_MOST: Final = 2**31 - 1
"""What fits the node's parameter; it allows fewer."""


class ListingCommands:
    """The command that finds keys."""

    def __init__(self, node: Reads, config: RespConfig) -> None:
        self._node = node
        self._timeout_s = node.config.request_timeout_s
        self._max_reply_bytes = config.write_buffer_bytes

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            Command(
                name="SNAP.KEYS", arity=-2, summary="Keys of a store cache that begin so, with versions",
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
        return self._page(words[1], after, most, asked or BOUNDED, session.protocol)

    async def _page(self, prefix: bytes, after: str, most: int, asked: Consistency, protocol: int) -> bytes:
        deadline_s = monotonic() + self._timeout_s
        page = await self._node.listing(plain_key(prefix), after, most, asked, deadline_s)
        keys = array([array((bulk(key), integer(version))) for key, version in page.keys])
        if len(keys) > self._max_reply_bytes:
            raise CommandInvalid(
                f"the reply of {len(keys)} bytes would exceed resp.write_buffer, {self._max_reply_bytes}"
                " bytes: ask for a smaller COUNT"
            )
        as_of = bulk(self._node.token(page.as_of, page.incarnation))
        return mapping(protocol, (("keys", keys), ("as_of", as_of), ("age_ms", milliseconds(page.age_s))))
