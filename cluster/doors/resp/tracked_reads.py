"""The reads of a client that keeps values: GET, MGET, EXISTS, TTL, PTTL, TYPE, with what they let it keep.

They leave what they answer in this node's memory, whoever owns the key, since only what is here is told of. Replies
that name a snapshot (SNAP.GET, SNAP.MGET, keys with a token) are not to be kept: nothing is noted of the former, and
the latter is let go of at once.
"""

from collections.abc import Mapping

from cluster.config import RespConfig
from cluster.doors.reads import Near, Reads
from cluster.doors.resp.commands import Command, Session, Words
from cluster.doors.resp.reads import Ask, ReadCommands
from cluster.doors.resp.tracking import Tracker
from cluster.doors.resp.words import plain_key
from cluster.entries import Entry
from cluster.noted import thoroughly
from cluster.requests import AtLeast, Reply, State

_TRACKED = frozenset({"GET", "MGET", "EXISTS", "TTL", "PTTL", "TYPE"})


class TrackedReads(ReadCommands):
    """The reads of the client of ``tracker``: of the memory of ``node``, and ``near`` it where that has nothing."""

    def __init__(self, node: Reads, near: Near, config: RespConfig, tracker: Tracker) -> None:
        super().__init__(node, config)
        self._answer = near.read
        self._hit = self._kept_hit
        self._forward = lambda _: None
        self._tracker = tracker

    def commands(self) -> Mapping[str, Command]:
        """Those that take the place of the door's, by name."""
        return {command.name: command for command in self.table() if command.name in _TRACKED}

    def exists(self, session: Session, words: Words) -> bytes:
        """EXISTS key [key ...]."""
        for text in words[1:]:
            self._look(text)
        return super().exists(session, words)

    def ttl(self, words: Words, per_s: int) -> bytes:
        """TTL key, PTTL key."""
        self._look(words[1])
        return super().ttl(words, per_s)

    def type(self, session: Session, words: Words) -> bytes:
        """TYPE key."""
        self._look(words[1])
        return super().type(session, words)

    def _look(self, text: bytes) -> None:
        key = plain_key(text)
        if self._node.peek(key) is None:
            self._tracker.refuse(text)
        else:
            self._tracker.keep(key.canonical, text)

    def _kept_hit(self, text: bytes, now: float) -> Entry | None:
        if thoroughly():
            return None  # what the request's line says of it, only a reply knows
        entry = self._node.hit(text, now)
        if entry is not None:
            self._tracker.keep(entry.key, text)
        return entry

    def _try(self, ask: Ask) -> Reply | None:
        reply = super()._try(ask)
        if reply is not None:
            self._note(ask, held=True)
        return reply

    async def _read(self, ask: Ask, deadline_s: float) -> Reply:
        reply = await super()._read(ask, deadline_s)
        held = self._held(ask, reply)
        self._note(ask, held=held is not None)
        return held or reply

    def _held(self, ask: Ask, reply: Reply) -> Reply | None:
        """The answer of the open entry that is here now and no older than ``reply``."""
        if reply.state is not State.FRESH or reply.incarnation != self._node.timeline.incarnation:
            return None
        return self._node.try_read(ask.key, AtLeast(reply.as_of, reply.incarnation))

    def _note(self, ask: Ask, *, held: bool) -> None:
        if held and not ask.has_token:
            self._tracker.keep(ask.key.canonical, ask.text)
        else:
            self._tracker.refuse(ask.text)
