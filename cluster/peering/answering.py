"""What a node answers to the others: by itself, whatever its ring says, so that no read takes a second hop.

What memory has is answered at once, without a task of its own; else the call waits for `Node.read`.
"""

from collections.abc import Callable, Coroutine, Mapping
from time import monotonic
from typing import Any

from cluster.node import Node
from cluster.peering.copies import KEEP, TAKE
from cluster.peering.messages import (
    GET,
    PLAIN,
    Get,
    decode_get,
    decode_plain,
    definitions,
    encode_reply,
    encode_value,
)
from cluster.peering.sharing import Sharing
from cluster.requests import BOUNDED, Consistency, Reply, Source, State
from peers.errors import MessageInvalid
from peers.inbox import Asker
from peers.membership import Membership
from peers.wire import Call
from snapring.errors import CacheUnknown, KeyInvalid
from snapring.keys import Key, parse


class Answering:
    """Answers the calls of peers out of ``node``: the handler of a `peers.service.Service`.

    ``at_once`` counts what memory had, ``later`` what it had not, ``differing`` the questions about caches that
    are not the same here.
    """

    def __init__(
        self,
        node: Node,
        membership: Membership,
        clock: Callable[[], float] = monotonic,
        sharing: Sharing | None = None,
    ) -> None:
        self._node = node
        self._sharing = sharing
        self._membership = membership
        self._clock = clock
        self._definitions = definitions(node.config.caches.values())
        self.at_once = self.later = self.differing = 0

    def __repr__(self) -> str:
        return f"<Answering of {self._node!r}: at_once={self.at_once} later={self.later}>"

    def describe(self) -> Mapping[str, object]:
        """Its counters, for status."""
        return {
            "questions_at_once": self.at_once,
            "questions_later": self.later,
            "questions_differing": self.differing,
        }

    def __call__(self, call: Call, asker: Asker) -> bytes | Coroutine[Any, Any, bytes]:
        """The answer to one call. Raises `SnapringError`."""
        if asker.epoch != self._membership.epoch:
            self._membership.mismatch(asker.epoch)
        if self._sharing is not None and call.kind == KEEP:
            return self._sharing.keep(call.body)
        if self._sharing is not None and call.kind == TAKE:
            return self._sharing.take(decode_get(call.body))
        if call.kind == PLAIN:
            return self._plain(call)
        if call.kind != GET:
            raise MessageInvalid(f"a call of a kind that this version does not know: {call.kind}")
        get = decode_get(call.body)
        if (reply := self._hit(get)) is not None:
            self.at_once += 1
            return encode_reply(reply)
        key = self._key(get)
        reply = self._node.try_read(key, get.consistency)
        if reply is not None:
            self.at_once += 1
            return encode_reply(reply)
        self.later += 1
        return self._later(key, get.consistency, self._clock() + call.timeout_s)

    def _plain(self, call: Call) -> bytes | Coroutine[Any, Any, bytes]:
        """The value of an open entry; no older than the watermark, as which it is true, see `Timeline`."""
        text, meaning = decode_plain(call.body)
        node, now = self._node, self._clock()
        entry = node.store.index.get(text)
        if (
            entry is not None
            and meaning == self._definitions[entry.cache.name]
            and node.timeline.watermark is not None
            and node.hit(text) is not None
        ):
            self.at_once += 1
            return encode_value(State.FRESH, entry.value, now - node.timeline.watermark_s)
        key = self._key(Get(key=text, definition=meaning, consistency=BOUNDED))
        reply = node.try_read(key, BOUNDED)
        if reply is not None:
            self.at_once += 1
            return encode_value(reply.state, reply.value, reply.age_s)
        self.later += 1
        return self._plain_later(key, now + call.timeout_s)

    def _hit(self, get: Get) -> Reply | None:
        """The answer to the plainest question about an entry that needs no further thought."""
        node = self._node
        entry, incarnation = node.store.index.get(get.key), node.timeline.incarnation
        if (
            entry is None
            or get.consistency is not BOUNDED
            or get.definition != self._definitions[entry.cache.name]
            or incarnation is None
            or node.hit(get.key) is None
        ):
            return None
        as_of, as_of_s = node.timeline.as_of(entry)
        return Reply(
            value=entry.value,
            as_of=as_of,
            incarnation=incarnation,
            age_s=self._clock() - as_of_s,
            state=State.FRESH,
            source=Source.LOCAL,
            version=entry.version,
        )

    async def _plain_later(self, key: Key, deadline_s: float) -> bytes:
        reply = await self._read(key, BOUNDED, deadline_s)
        return encode_value(reply.state, reply.value, reply.age_s)

    async def _later(self, key: Key, consistency: Consistency, deadline_s: float) -> bytes:
        return encode_reply(await self._read(key, consistency, deadline_s))

    async def _read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        if self._sharing is not None:
            await self._sharing.fetch_moved(key, deadline_s)
        return await self._node.read(key, consistency, deadline_s)

    def _key(self, get: Get) -> Key:
        """The key asked for. Raises `CacheUnknown` where its answers would not mean what the asker means."""
        try:
            key, token = parse(get.key)
        except KeyInvalid as error:
            raise MessageInvalid(f"a question about no key: {error}") from error
        if token is not None:
            raise MessageInvalid("a key with a token: consistency has fields of its own")
        if self._definitions.get(key.cache) != get.definition:
            self.differing += 1
            raise CacheUnknown(
                f"no cache {key.cache!r} with the asker's settings on {self._node.config.name}"
            )
        return key
