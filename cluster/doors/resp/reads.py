"""The commands that read caches: GET, MGET, EXISTS, TTL, TYPE, SNAP.GET, SNAP.MGET, SNAP.TOKEN.

A value comes back as the bytes it is kept in. A key may carry a token, ``{key}@TOKEN``, which asks for at
least that snapshot. MGET and SNAP.MGET fail as a whole if one of their keys does: a failure is never shown as
"no row". SNAP.MGET reads all of its keys at one snapshot.

A connection reads its own writes: until the node has followed the last one, whatever names no consistency of
its own is read at least there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from time import monotonic
from typing import Final

from cluster.config import RespConfig
from cluster.doors.reads import Late, Reads
from cluster.doors.resp.commands import Command, Outcome, Session, Words, shown
from cluster.doors.resp.frames import array, bulk, integer, mapping, milliseconds, simple
from cluster.doors.resp.telling import Telling
from cluster.doors.resp.words import consistency, following, number, plain_key
from cluster.entries import Entry
from cluster.noted import note
from cluster.requests import BOUNDED, AtLeast, Bounded, Consistency, Exactly, Reply, sees
from cluster.snapshots import MAX_XID
from cluster.together import alike, concurrently
from snapring.errors import CommandInvalid, TokenForeign
from snapring.keys import Key, parse

_ONE_KEY: Final = (1, 1, 1)
_ALL_KEYS: Final = (1, -1, 1)
_NO_TTL: Final = -1
_NOT_CACHED: Final = -2


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of one key."""

    key: Key
    consistency: Consistency
    own: Session | None = None
    """Whose own write the consistency comes from, if from one."""
    text: bytes = b""
    """The key as the client wrote it."""

    @property
    def has_token(self) -> bool:
        """Whether a token came in the key."""
        return self.text.startswith(b"{")


class ReadCommands:
    """The commands that reach the node's caches."""

    def __init__(self, node: Reads, config: RespConfig) -> None:
        self._node = node
        self._answer = node.read
        self._hit: Callable[[bytes, float], Entry | None] = node.hit
        self._forward: Callable[[bytes], Late | None] = node.forward
        self._timeout_s = node.config.request_timeout_s
        self._telling = Telling(node)
        self._max_reply_bytes = config.write_buffer_bytes

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            Command(name="GET", arity=2, summary="The value of a key", run=self.get, keys=_ONE_KEY),
            Command(name="MGET", arity=-2, summary="The values of keys", run=self.mget, keys=_ALL_KEYS),
            Command(
                name="EXISTS", arity=-2, summary="How many of the keys are in memory with a value",
                run=self.exists, keys=_ALL_KEYS,
            ),
            Command(
                name="TTL", arity=2, summary="Seconds a key stays in memory: -1 without end, -2 not there",
                run=lambda _, words: self.ttl(words, 1), keys=_ONE_KEY,
            ),
            Command(
                name="PTTL", arity=2, summary="The same in milliseconds",
                run=lambda _, words: self.ttl(words, 1000), keys=_ONE_KEY,
            ),
            Command(
                name="TYPE", arity=2, summary="string, where a key is in memory with a value, or none",
                run=self.type, keys=_ONE_KEY,
            ),
            Command(
                name="SNAP.GET", arity=-2, summary="A value and as of which snapshot it is true",
                run=self.snap_get, keys=_ONE_KEY,
            ),
            Command(
                name="SNAP.MGET", arity=-2, summary="Values of keys, all as of one and the same snapshot",
                run=self.snap_mget, keys=_ALL_KEYS,
            ),
            Command(
                name="SNAP.TOKEN", arity=-1, summary="A token of the present snapshot, or of a transaction",
                run=self.snap_token,
            ),
        ]  # fmt: skip

    def get(self, session: Session, words: Words) -> Outcome:
        """GET key."""
        floor = self._floor(session)
        entry = None if floor else self._hit(words[1], monotonic())
        if entry is not None:
            return entry.frame or session.null
        if floor is None and session.own is None and (late := self._forward(words[1])) is not None:
            return late
        ask = self._ask(words[1], session, floor)
        reply = self._try(ask)
        return _value(reply, session.null) if reply else self._late_value(ask, session.null)

    def mget(self, session: Session, words: Words) -> Outcome:
        """MGET key [key ...]: what memory lacks is loaded concurrently."""
        null, now, floor = session.null, monotonic(), self._floor(session)
        frames: list[bytes] = []
        late: dict[int, Ask] = {}
        for at, text in enumerate(words[1:]):
            if floor is None and (entry := self._hit(text, now)) is not None:
                frames.append(entry.frame or null)
                continue
            ask = self._ask(text, session, floor)
            reply = self._try(ask)
            frames.append(_value(reply, null) if reply else b"")
            if reply is None:
                late[at] = ask
        return self._late_values(frames, late, null) if late else self._array(frames)

    def exists(self, _session: Session, words: Words) -> bytes:
        """EXISTS key [key ...]: looks into memory only; a cached "no row" does not count."""
        entries = [self._node.peek(plain_key(text)) for text in words[1:]]
        return integer(sum(entry is not None and entry.frame is not None for entry in entries))

    def ttl(self, words: Words, per_s: int) -> bytes:
        """TTL key, PTTL key: of the entry in memory."""
        entry = self._node.peek(plain_key(words[1]))
        if entry is None:
            return integer(_NOT_CACHED)
        if entry.until_s == inf:
            return integer(_NO_TTL)
        return integer(max(0, ceil((entry.until_s - monotonic()) * per_s)))

    def type(self, _session: Session, words: Words) -> bytes:
        """TYPE key: of the entry in memory."""
        entry = self._node.peek(plain_key(words[1]))
        return simple("none" if entry is None or entry.frame is None else "string")

    def snap_get(self, session: Session, words: Words) -> Outcome:
        """SNAP.GET key [ATLEAST token | EXACT token | STRONG] [TIMEOUT ms]."""
        if len(words) == 2 and (told := self._told(session, words[1])) is not None:
            return told
        ask, timeout_s = self._options(session, words)
        reply = self._try(ask)
        if reply is not None:
            return self._full(reply, session.protocol, session.null)
        return self._late_full(ask, monotonic() + timeout_s, session.protocol, session.null)

    def snap_mget(self, session: Session, words: Words) -> Outcome:
        """SNAP.MGET key [key ...]."""
        floor = self._floor(session)
        asks = [self._ask(text, session, floor) for text in words[1:]]
        return self._together(asks, session.protocol, session.null)

    def snap_token(self, session: Session, words: Words) -> Outcome:
        """SNAP.TOKEN [STRONG], or SNAP.TOKEN TICKET xid."""
        match [word.upper() for word in words[1:]]:
            case []:
                return self._late_token(strong=self._floor(session) is not None)
            case [b"STRONG"]:
                return self._late_token(strong=True)
            case [b"TICKET", xid]:
                return bulk(self._node.ticket(number(xid, "xid", MAX_XID)))
        raise CommandInvalid("syntax: SNAP.TOKEN [STRONG | TICKET xid]")

    def _told(self, session: Session, text: bytes) -> bytes | None:
        """All of an open entry, if nothing more need be thought of."""
        now = monotonic()
        if self._floor(session) is not None or (entry := self._hit(text, now)) is None:
            return None
        return self._telling.frame(entry, now, session.protocol, session.null)

    def _floor(self, session: Session) -> AtLeast | None:
        """What plain reads of the connection must see; from then on, open entries do that by themselves."""
        floor, timeline = session.floor, self._node.timeline
        if floor is None or floor.incarnation != timeline.incarnation or timeline.watermark is None:
            return floor
        if sees(timeline.watermark, floor.position):
            session.own, session.floor = floor, None
            return None
        return floor

    def _ask(self, text: bytes, session: Session, floor: AtLeast | None) -> Ask:
        key, token = parse(text)
        if token is not None:
            return Ask(key, self._node.at_least(token), text=text)
        if floor is not None:
            return Ask(key, floor, session, text)
        return Ask(key, BOUNDED if session.own is None else Bounded(session.own), text=text)

    def _try(self, ask: Ask) -> Reply | None:
        """From memory. What asks for one's own write goes the way of `_read`."""
        reply = None if ask.own else self._node.try_read(ask.key, ask.consistency)
        return reply and note(reply)

    async def _read(self, ask: Ask, deadline_s: float) -> Reply:
        """From the node. Raises `TokenForeign` once if the incarnation of one's own write is gone."""
        try:
            return note(await self._answer(ask.key, ask.consistency, deadline_s))
        except TokenForeign:
            floor = ask.consistency
            if ask.own is None or not isinstance(floor, AtLeast):
                raise
            await self._node.snapshot(deadline_s, strong=True)  # the write may be what is newer
            if self._node.timeline.incarnation == floor.incarnation:
                return note(await self._answer(ask.key, floor, deadline_s))
            if ask.own.floor is floor:
                ask.own.floor = None
            raise

    def _options(self, session: Session, words: Words) -> tuple[Ask, float]:
        ask, timeout_s = self._ask(words[1], session, self._floor(session)), self._timeout_s
        chosen = ask.own is None and not isinstance(ask.consistency, Bounded)
        rest = iter(words[2:])
        for word in rest:
            if word.upper() == b"TIMEOUT":
                timeout_s = min(timeout_s, number(following(rest, word), "TIMEOUT", 2**31) / 1000)
                continue
            if chosen:
                raise CommandInvalid("SNAP.GET takes one of a token in the key, ATLEAST, EXACT and STRONG")
            asked = consistency(self._node, word, rest)
            if asked is None:
                raise CommandInvalid(f"SNAP.GET has no option '{shown(word)}'")
            ask, chosen = Ask(ask.key, asked), True
        return ask, timeout_s

    def _deadline_s(self) -> float:
        return monotonic() + self._timeout_s

    async def _late_value(self, ask: Ask, null: bytes) -> bytes:
        return _value(await self._read(ask, self._deadline_s()), null)

    async def _late_values(self, frames: list[bytes], late: dict[int, Ask], null: bytes) -> bytes:
        found = await concurrently(self._late_value(ask, null) for ask in late.values())
        for at, frame in zip(late, found, strict=True):
            frames[at] = frame
        return self._array(frames)

    async def _late_full(self, ask: Ask, deadline_s: float, protocol: int, null: bytes) -> bytes:
        return self._full(await self._read(ask, deadline_s), protocol, null)

    async def _together(self, asks: Sequence[Ask], protocol: int, null: bytes) -> bytes:
        deadline_s = self._deadline_s()

        async def read(n: int, at: Exactly | None) -> Reply:
            ask = Ask(asks[n].key, at) if at else asks[n]
            return self._try(ask) or await self._read(ask, deadline_s)

        replies = await alike(read, len(asks), monotonic)
        fields = {
            "values": self._array([_value(reply, null) for reply in replies]),
            "as_of": bulk(self._node.token(replies[0].as_of, replies[0].incarnation)),
            "age_ms": milliseconds(replies[0].age_s),
            "state": bulk(replies[0].state.value),
            "versions": array(
                [null if reply.version is None else integer(reply.version) for reply in replies]
            ),
        }
        return mapping(protocol, fields.items())

    async def _late_token(self, *, strong: bool) -> bytes:
        return bulk(self._node.token(*await self._node.snapshot(self._deadline_s(), strong=strong)))

    def _full(self, reply: Reply, protocol: int, null: bytes) -> bytes:
        fields = {
            "value": _value(reply, null),
            "as_of": bulk(self._node.token(reply.as_of, reply.incarnation)),
            "age_ms": milliseconds(reply.age_s),
            "state": bulk(reply.state.value),
            "source": bulk(reply.source.value),
        }
        if reply.version is not None:
            fields["version"] = integer(reply.version)
        return mapping(protocol, fields.items())

    def _array(self, frames: Sequence[bytes]) -> bytes:
        size = sum(map(len, frames))
        if size > self._max_reply_bytes:
            raise CommandInvalid(
                f"the reply of {size} bytes would exceed resp.write_buffer, {self._max_reply_bytes} bytes:"
                " ask for fewer keys at once"
            )
        return array(frames)


def _value(reply: Reply, null: bytes) -> bytes:
    return null if reply.value is None else bulk(reply.value)
