"""The commands that read caches: GET, MGET, EXISTS, TTL, SNAP.GET, SNAP.TOKEN; and the writes, refused.

A value comes back as the bytes it is kept in. A key may carry a token, ``{key}@TOKEN``, which asks for at
least that snapshot. MGET fails as a whole if one of its keys does: a failure is never shown as "no row".
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from time import monotonic
from typing import Final

from cluster.config import RespConfig
from cluster.doors.resp.commands import Command, Outcome, Reads, Session, Words, shown
from cluster.doors.resp.frames import array, bulk, integer, mapping
from cluster.entries import Entry
from cluster.memory.policy import MAX_FREQUENCY
from cluster.requests import BOUNDED, STRONG, Consistency, Reply
from cluster.snapshots import MAX_XID
from snapring.errors import CommandInvalid, ReadOnly
from snapring.keys import Key, parse

_ONE_KEY: Final = (1, 1, 1)
_ALL_KEYS: Final = (1, -1, 1)
_WRITES: Final = (
    "APPEND",
    "DECR",
    "DECRBY",
    "DEL",
    "EXPIRE",
    "EXPIREAT",
    "GETDEL",
    "GETEX",
    "GETSET",
    "INCR",
    "INCRBY",
    "MSET",
    "PERSIST",
    "PEXPIRE",
    "PSETEX",
    "SET",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "UNLINK",
)
_NO_TTL: Final = -1
_NOT_CACHED: Final = -2


@dataclass(frozen=True, slots=True)
class _Ask:
    key: Key
    consistency: Consistency


class ReadCommands:
    """The commands that reach the node's caches."""

    def __init__(self, node: Reads, config: RespConfig) -> None:
        self._node = node
        self._index = node.store.index
        self._timeout_s = node.config.request_timeout_s
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
                name="SNAP.GET", arity=-2, summary="A value and as of which snapshot it is true",
                run=self.snap_get, keys=_ONE_KEY,
            ),
            Command(
                name="SNAP.TOKEN", arity=-1, summary="A token of the present snapshot, or of a transaction",
                run=self.snap_token,
            ),
            *(
                Command(
                    name=name, arity=-2, summary="Refused: caches of rows are read only", run=self.write,
                    keys=_ONE_KEY, flags=("write",),
                )
                for name in _WRITES
            ),
        ]  # fmt: skip

    def get(self, session: Session, words: Words) -> Outcome:
        """GET key."""
        entry = self._hit(words[1], monotonic())
        if entry is not None:
            return entry.frame or session.null
        ask = self._ask(words[1])
        reply = self._node.try_read(ask.key, ask.consistency)
        return _value(reply, session.null) if reply else self._late_value(ask, session.null)

    def mget(self, session: Session, words: Words) -> Outcome:
        """MGET key [key ...]: what memory lacks is loaded concurrently."""
        null, now = session.null, monotonic()
        frames: list[bytes] = []
        late: dict[int, _Ask] = {}
        for at, text in enumerate(words[1:]):
            if (entry := self._hit(text, now)) is not None:
                frames.append(entry.frame or null)
                continue
            ask = self._ask(text)
            reply = self._node.try_read(ask.key, ask.consistency)
            frames.append(_value(reply, null) if reply else b"")
            if reply is None:
                late[at] = ask
        return self._late_values(frames, late, null) if late else self._array(frames)

    def exists(self, _session: Session, words: Words) -> bytes:
        """EXISTS key [key ...]: looks into memory only; a cached "no row" does not count."""
        entries = [self._node.peek(_plain_key(text)) for text in words[1:]]
        return integer(sum(entry is not None and entry.frame is not None for entry in entries))

    def ttl(self, words: Words, per_s: int) -> bytes:
        """TTL key, PTTL key: of the entry in memory."""
        entry = self._node.peek(_plain_key(words[1]))
        if entry is None:
            return integer(_NOT_CACHED)
        if entry.until_s == inf:
            return integer(_NO_TTL)
        return integer(max(0, ceil((entry.until_s - monotonic()) * per_s)))

    def snap_get(self, session: Session, words: Words) -> Outcome:
        """SNAP.GET key [ATLEAST token | EXACT token | STRONG] [TIMEOUT ms]."""
        ask, timeout_s = self._options(words)
        reply = self._node.try_read(ask.key, ask.consistency)
        if reply is not None:
            return self._full(reply, session.protocol, session.null)
        return self._late_full(ask, monotonic() + timeout_s, session.protocol, session.null)

    def snap_token(self, _session: Session, words: Words) -> Outcome:
        """SNAP.TOKEN [STRONG], or SNAP.TOKEN TICKET xid."""
        match [word.upper() for word in words[1:]]:
            case []:
                return self._late_token(strong=False)
            case [b"STRONG"]:
                return self._late_token(strong=True)
            case [b"TICKET", xid]:
                return bulk(self._node.ticket(_number(xid, "xid", MAX_XID)))
        raise CommandInvalid("syntax: SNAP.TOKEN [STRONG | TICKET xid]")

    def write(self, _session: Session, words: Words) -> bytes:
        """Any write."""
        key = _plain_key(words[1])
        self._node.peek(key)  # an unknown cache is the better thing to say
        raise ReadOnly(f"{key.cache!r} is a cache of rows: write to Postgres, and its entries follow")

    def _hit(self, text: bytes, now: float) -> Entry | None:
        """The entry under exactly this text if it may be answered without further thought."""
        entry = self._index.get(text)
        if entry is None or entry.until_s <= now or now > self._node.fresh_until_s:
            return None
        if entry.frequency < MAX_FREQUENCY:
            entry.frequency += 1
        self._node.hits += 1
        return entry

    def _ask(self, text: bytes) -> _Ask:
        key, token = parse(text)
        return _Ask(key, BOUNDED if token is None else self._node.at_least(token))

    def _options(self, words: Words) -> tuple[_Ask, float]:
        ask, timeout_s = self._ask(words[1]), self._timeout_s
        rest = iter(words[2:])
        for word in rest:
            option = word.upper()
            if option == b"TIMEOUT":
                timeout_s = min(timeout_s, _number(_next(rest, option), "TIMEOUT", 2**31) / 1000)
                continue
            if ask.consistency is not BOUNDED:
                raise CommandInvalid("SNAP.GET takes one of a token in the key, ATLEAST, EXACT and STRONG")
            ask = _Ask(ask.key, self._consistency(option, rest))
        return ask, timeout_s

    def _consistency(self, option: bytes, rest: Iterator[bytes]) -> Consistency:
        match option:
            case b"STRONG":
                return STRONG
            case b"ATLEAST":
                return self._node.at_least(_token(_next(rest, option)))
            case b"EXACT":
                return self._node.exactly(_token(_next(rest, option)))
        raise CommandInvalid(f"SNAP.GET has no option '{shown(option)}'")

    def _deadline_s(self) -> float:
        return monotonic() + self._timeout_s

    async def _late_value(self, ask: _Ask, null: bytes) -> bytes:
        return _value(await self._node.read(ask.key, ask.consistency, self._deadline_s()), null)

    async def _late_values(self, frames: list[bytes], late: dict[int, _Ask], null: bytes) -> bytes:
        tasks = {at: asyncio.ensure_future(self._late_value(ask, null)) for at, ask in late.items()}
        try:
            for at, frame in zip(tasks, await asyncio.gather(*tasks.values()), strict=True):
                frames[at] = frame
        finally:
            for task in tasks.values():
                task.cancel()
        return self._array(frames)

    async def _late_full(self, ask: _Ask, deadline_s: float, protocol: int, null: bytes) -> bytes:
        return self._full(await self._node.read(ask.key, ask.consistency, deadline_s), protocol, null)

    async def _late_token(self, *, strong: bool) -> bytes:
        return bulk(self._node.token(*await self._node.snapshot(self._deadline_s(), strong=strong)))

    def _full(self, reply: Reply, protocol: int, null: bytes) -> bytes:
        return mapping(
            protocol,
            (
                ("value", _value(reply, null)),
                ("as_of", bulk(self._node.token(reply.as_of, reply.incarnation))),
                ("age_ms", integer(max(0, ceil(reply.age_s * 1000)))),
                ("state", bulk(reply.state.value)),
                ("source", bulk(reply.source.value)),
            ),
        )

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


def _plain_key(text: bytes) -> Key:
    key, token = parse(text)
    if token is not None:
        raise CommandInvalid("this command takes a key without a token")
    return key


def _next(rest: Iterator[bytes], option: bytes) -> bytes:
    word = next(rest, None)
    if word is None:
        raise CommandInvalid(f"{shown(option)} needs a value")
    return word


def _token(word: bytes) -> str:
    return word.decode("ascii", "replace")


def _number(word: bytes, name: str, most: int) -> int:
    number = int(word) if word.isdigit() and len(word) <= 20 else 0
    if not 1 <= number <= most:
        raise CommandInvalid(f"{name} must be a whole number from 1 to {most}")
    return number
