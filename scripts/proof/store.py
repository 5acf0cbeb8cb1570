"""Writers of a `store` cache: they put and delete through the node, as its clients do.

Every write also replaces the writer's mark, and demands the version that the mark had. So writes of one writer
happen in their order or not at all, however late one arrives; and the mark tells what became of a write whose
answer was WRITE_UNCERTAIN. Keys that all writers share are only ever put, at the version just read. Either
way the number drawn before a write is its place among those to the same key.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from time import monotonic
from typing import Any, Final, cast

import hiredis
import msgpack
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cluster.tokens import Ticket, TokenCodec
from scripts.demonstration.resp import Resp
from scripts.proof.chronicle import Chronicle
from scripts.proof.history import UNKNOWN_XID, LogRow, Write
from scripts.proof.naming import Named, named
from scripts.proof.proxy import HOST
from scripts.proof.replies import Asked, Replies
from scripts.proof.truths import SETTINGS, SHARED_KEYS, mark_of, own_keys_of
from scripts.proof.writers import connected

_AGAIN_S: Final = 0.05
_DELETED: Final = 0.3
_WITH_SHARED: Final = 0.4
_UNCERTAIN: Final = "WRITE_UNCERTAIN"
_NEXT: Final = b"SELECT nextval('proof.log_seq_seq')"
_CREATED: Final = b"SELECT created::text FROM snapring.heads WHERE version = %s"

Answer = Mapping[bytes, Any]


class StoreWriter:
    """Writes to the node on ``port()``, one atomic write each ``pace_s`` on average, until `stop`.

    Between the number drawn and the write up to ``thinks_s`` pass, in which others may be quicker.

    It ends knowing of every write of its own whether it happened, or that nobody can know. ``record``: what
    it read of its own writes, asking for nothing: the connection owes it the last one.
    """

    def __init__(
        self,
        dsn: Callable[[], str],
        port: Callable[[], int],
        codec: TokenCodec,
        chronicle: Chronicle,
        *,
        number: int,
        rng: Random,
        pace_s: float,
        thinks_s: float = 0.0,
    ) -> None:
        self._dsn = dsn
        self._port = port
        self._codec = codec
        self._chronicle = chronicle
        self._number = number
        self._rng = rng
        self._pace_s = pace_s
        self._thinks_s = thinks_s
        self._stopping = False
        self._mark = 0
        self._doubtful: list[Write] = []
        self.record = Replies()

    def stop(self) -> None:
        """Let `run` return once nothing is in doubt."""
        self._stopping = True

    async def run(self) -> None:
        """Write on and on; connect again when either connection breaks."""
        while not self._stopping or self._doubtful:
            with contextlib.suppress(psycopg.Error, OSError):
                async with connected(self._dsn(), self._chronicle) as connection:
                    node = await Resp.open(HOST, self._port())
                    try:
                        await self._work(connection, node)
                    finally:
                        await node.close()
            await asyncio.sleep(_AGAIN_S)

    async def _work(self, connection: AsyncConnection[TupleRow], node: Resp) -> None:
        known = False
        while not self._stopping or self._doubtful:
            known = known or await self._remember(connection, node)
            if known:
                known = await self._write(connection, node)
            await asyncio.sleep(self._rng.expovariate(1 / self._pace_s))

    async def _remember(self, connection: AsyncConnection[TupleRow], node: Resp) -> bool:
        """Whether the node says which write of this writer was the last."""
        answer = await self._asked(node, b"SNAP.GET", _key(mark_of(self._number)), b"STRONG")
        if not isinstance(answer, dict):
            return False
        self._mark = answer[b"version"] or 0
        nonce = msgpack.unpackb(answer[b"value"])["n"] if answer[b"value"] is not None else None
        at = named(answer[b"as_of"], self._codec)
        assert isinstance(at, Named), "every answer names its snapshot"
        for write in self._doubtful:
            if write.nonce == nonce:
                era = self._chronicle.era_of(write, at.incarnation)
                created = await (await connection.execute(_CREATED, (self._mark,))).fetchall()
                if era is None or not created:
                    return False
                self._chronicle.found(replace(write, xid=int(created[0][0]), incarnation=era))
                self._doubtful.remove(write)
                break
        return True

    async def _write(self, connection: AsyncConnection[TupleRow], node: Resp) -> bool:
        """One write; whether the version of the mark is still known."""
        values, versions = await self._deeds(node)
        ((seq,),) = await (await connection.execute(_NEXT)).fetchall()
        if self._thinks_s:
            await asyncio.sleep(self._rng.random() * self._thinks_s)
        nonce = self._chronicle.nonce()
        packed = msgpack.packb({"n": nonce})
        words = [b"SNAP.WRITE"]
        for argument, put in values.items():
            words += [b"PUT", _key(argument), packed] if put else [b"DEL", _key(argument)]
            if argument in versions:
                words += [b"IFVERSION", b"%d" % versions[argument]]
        write = Write(
            nonce=nonce,
            xid=UNKNOWN_XID,
            incarnation=self._chronicle.incarnation,
            rows=tuple(
                LogRow(seq, SETTINGS.name, argument, {"n": nonce} if put else None)
                for argument, put in values.items()
            ),
            sent_s=monotonic(),
            acked_s=None,
        )
        self._doubtful.append(write)
        answer = await self._asked(node, *words)
        if isinstance(answer, dict):
            self._acknowledged(write, answer)
            await self._read_back(node, self._rng.choice(tuple(values)), answer[b"token"])
            return True
        if str(answer).split(" ", 1)[0] != _UNCERTAIN:
            self._doubtful.remove(write)
        return False

    async def _deeds(self, node: Resp) -> tuple[dict[str, bool], dict[str, int]]:
        """Whether to put or delete which keys, and the versions that some of them must have."""
        values = {mark_of(self._number): True}
        versions = {mark_of(self._number): self._mark}
        if self._stopping:
            return values, versions
        for argument in self._rng.sample(own_keys_of(self._number), self._rng.randint(0, 2)):
            values[argument] = self._rng.random() >= _DELETED
        if self._rng.random() < _WITH_SHARED:
            argument = self._rng.choice(SHARED_KEYS)
            answer = await self._asked(node, b"SNAP.GET", _key(argument))
            if isinstance(answer, dict):
                values[argument], versions[argument] = True, answer[b"version"] or 0
        return values, versions

    def _acknowledged(self, write: Write, answer: Answer) -> None:
        """With ``write``, none that was in doubt can happen any more; those of before a crash may have."""
        ticket = named(answer[b"token"], self._codec)
        assert isinstance(ticket, Named), "it is a ticket of the node"
        assert isinstance(ticket.position, Ticket), "it names a transaction"
        self._mark = answer[b"version"]
        self._chronicle.acknowledged(replace(write, xid=ticket.position.xid, incarnation=ticket.incarnation))
        for other in self._doubtful:
            if other is not write and other.incarnation != ticket.incarnation:
                self._chronicle.found(replace(other, ambiguous=True))
        self._doubtful.clear()

    async def _read_back(self, node: Resp, argument: str, ticket: bytes) -> None:
        """Read without a token what was written with ``ticket``. After a crash the node owes nothing any more."""
        sent_s = monotonic()
        answer = await self._asked(node, b"SNAP.GET", _key(argument))
        if isinstance(answer, dict) and self._belong_together(answer[b"as_of"], ticket):
            self.record.add(
                key=_key(argument),
                value=answer[b"value"],
                as_of=answer[b"as_of"],
                asked=Asked.ATLEAST,
                token=ticket,
                stale=answer[b"state"] != b"FRESH",
                sent_s=sent_s,
                received_s=monotonic(),
            )

    def _belong_together(self, one: bytes, other: bytes) -> bool:
        first, second = named(one, self._codec), named(other, self._codec)
        if isinstance(first, Named) and isinstance(second, Named):
            return first.incarnation == second.incarnation
        return True  # which the judge looks into

    async def _asked(self, node: Resp, *words: bytes) -> Answer | hiredis.ReplyError:
        (answer,) = await node.ask([words])
        return cast("Answer | hiredis.ReplyError", answer)


def _key(argument: str) -> bytes:
    return f"{SETTINGS.name}:{argument}".encode()
