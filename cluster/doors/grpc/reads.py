"""The methods that read: Get, GetMany, Token."""

from collections.abc import Coroutine, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

from cluster.config import GrpcConfig
from cluster.doors.grpc.calls import Answer, Calls, Context
from cluster.doors.grpc.hits import Hits, Memory
from cluster.doors.grpc.messages import consistency_of, read_of, reply_of
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.reads import Reads
from cluster.noted import note, thoroughly
from cluster.requests import BOUNDED, AtLeast, Consistency, Exactly, Reply, State
from cluster.snapshots import MAX_XID
from cluster.together import alike, concurrently
from cluster.watching import Hub
from snapring.errors import CommandInvalid
from snapring.keys import Key

Ask = tuple[Key, Consistency]


class Near(Memory, Protocol):
    """A node's own memory, and reads that leave their answer there, where it fits."""

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """The answer, by the monotonic time ``deadline_s``. Raises `SnapringError`."""


class ReadMethods:
    """Reads of ``node`` by ``visitor``; those that are to be tracked of ``near``, as told by ``watching``."""

    def __init__(
        self, node: Reads, near: Near, watching: Hub, calls: Calls, config: GrpcConfig, *, visitor: Visitor
    ) -> None:
        self._node = node
        self._near = near
        self._visitor = visitor
        self._hits = Hits(node, near, visitor)
        self._watching = watching
        self._calls = calls
        self._max_keys = config.max_keys

    def get_hit(self, request: bytes) -> bytes | None:
        """Get of what memory has, from bytes to bytes; None if that is not enough."""
        return self._hits.answer(request)

    def get(self, request: v1.GetRequest, context: Context) -> Answer:
        """Get."""
        node = self._node
        key, asked = read_of(node, self._visitor, request.key, consistency_of(node, request.consistency))
        if request.track:
            return self._get_tracked(key, asked, self._calls.deadline_s(context))
        reply = node.try_read(key, asked)
        if reply is not None:
            return self._message(reply)
        return self._get(key, asked, self._calls.deadline_s(context))

    def get_many(self, request: v1.GetManyRequest, context: Context) -> Answer:
        """GetMany."""
        node = self._node
        if not 1 <= len(request.keys) <= self._max_keys:
            raise CommandInvalid(
                f"a GetMany has 1 to {self._max_keys} keys (grpc.max_keys), not {len(request.keys)}"
            )
        asked = consistency_of(node, request.consistency)
        if request.one_snapshot:
            asks = [read_of(node, self._visitor, text, asked, alone=False) for text in request.keys]
            return self._together(asks, self._calls.deadline_s(context))
        replies, late = [], {}
        plainly = asked is BOUNDED and not thoroughly()
        for n, text in enumerate(request.keys):
            hit = self._hits.reply(text.encode()) if plainly else None
            if hit is not None:
                replies.append(v1.GetReply.FromString(hit))
                continue
            ask = read_of(node, self._visitor, text, asked, alone=False)
            reply = node.try_read(*ask)
            if reply is None:
                late[n] = ask
            replies.append(self._message(reply) if reply else v1.GetReply())
        if late:
            return self._get_rest(replies, late, self._calls.deadline_s(context))
        return v1.GetManyReply(replies=replies)

    def size_of(self, request: v1.GetManyRequest) -> int:
        """As how many requests it counts: one for each key, up to those of the largest allowed."""
        return max(1, min(len(request.keys), self._max_keys))

    def token(self, request: v1.TokenRequest, context: Context) -> Answer:
        """Token."""
        if request.WhichOneof("of") == "ticket":
            if not 1 <= request.ticket <= MAX_XID:
                raise CommandInvalid("a ticket is for a transaction id from 1 on")
            return v1.TokenReply(token=self._node.ticket(request.ticket))
        return self._token(request.strong, self._calls.deadline_s(context))

    def _message(self, reply: Reply) -> v1.GetReply:
        note(reply)
        return reply_of(reply, self._node.token(reply.as_of, reply.incarnation))

    async def _get(self, key: Key, asked: Consistency, deadline_s: float) -> v1.GetReply:
        return self._message(await self._node.read(key, asked, deadline_s))

    def _get_tracked(
        self, key: Key, asked: Consistency, deadline_s: float
    ) -> v1.GetReply | Coroutine[Any, Any, v1.GetReply]:
        if isinstance(asked, Exactly):
            raise CommandInvalid(
                "track and exactly exclude each other: what is asked at a snapshot never changes"
            )
        return self._held(key, asked) or self._get_to_hold(key, asked, deadline_s)

    async def _get_to_hold(self, key: Key, asked: Consistency, deadline_s: float) -> v1.GetReply:
        reply = await self._near.read(key, asked, deadline_s)
        held = None
        if reply.state is State.FRESH and reply.incarnation == self._node.timeline.incarnation:
            held = self._held(key, AtLeast(reply.as_of, reply.incarnation))
        return held or self._message(reply)

    def _held(self, key: Key, asked: Consistency) -> v1.GetReply | None:
        """The answer of the open entry that is here, and from where on it is vouched for.

        One step: nothing awaits. Only `Exactly` could be answered by an entry that has ended.
        """
        reply = self._node.try_read(key, asked)
        if reply is None:
            return None
        note(reply)
        since = self._watching.since(reply.as_of, reply.incarnation)
        return reply_of(reply, self._node.token(reply.as_of, reply.incarnation), since)

    async def _get_rest(
        self, replies: list[v1.GetReply], late: Mapping[int, Ask], deadline_s: float
    ) -> v1.GetManyReply:
        found = await concurrently(self._get(*ask, deadline_s) for ask in late.values())
        for n, reply in zip(late, found, strict=True):
            replies[n] = reply
        return v1.GetManyReply(replies=replies)

    async def _together(self, asks: Sequence[Ask], deadline_s: float) -> v1.GetManyReply:
        node = self._node

        async def read(n: int, at: Exactly | None) -> Reply:
            key, asked = asks[n]
            return node.try_read(key, at or asked) or await node.read(key, at or asked, deadline_s)

        replies = await alike(read, len(asks), monotonic)
        return v1.GetManyReply(replies=[self._message(reply) for reply in replies])

    async def _token(self, strong: bool, deadline_s: float) -> v1.TokenReply:
        return v1.TokenReply(token=self._node.token(*await self._node.snapshot(deadline_s, strong=strong)))
