"""A node that answers peers' calls out of memory, with no database behind it and nobody beside it."""

from collections.abc import Coroutine
from math import inf
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final, cast

from cluster.config import CacheConfig, NodeConfig, PeersConfig, PostgresConfig
from cluster.entries import Admission, Entry
from cluster.node import Node
from cluster.peering.answering import Answering
from cluster.peering.copies import KEEP, TAKE, decode_copies
from cluster.peering.messages import GET, PLAIN, decode_get, decode_reply, decode_value, definition
from cluster.peering.sharing import Sharing
from cluster.requests import Source
from cluster.snapshots import Snapshot
from peers.inbox import Asker
from peers.members import Member
from peers.ring import Ring
from peers.wire import Call, Hello
from scripts.fuzzing.target import hold
from snapring.errors import SnapringError
from snapring.keys import parse

CACHE: Final = CacheConfig(name="user", sql="SELECT 1")
MEANING: Final = definition(CACHE)
KEY: Final = b"user:1"

_SNAPSHOT: Final = Snapshot(100, 100)
_INCARNATION: Final = 7
_HELLO: Final = Hello(oldest=1, newest=2, node="a-1", instance="i", ring=b"12345678")


class Answerer:
    """Answers calls, and sees that no call is answered which should not be."""

    def __init__(self) -> None:
        store = CacheConfig(name="settings", kind="store")
        self._node = Node(
            NodeConfig(
                name="a-0",
                secrets=(b"a secret of the fuzzers alone",),
                memory_bytes=4 * 1024 * 1024,
                postgres=PostgresConfig(url="postgresql://nowhere.invalid/none"),
                caches={CACHE.name: CACHE, store.name: store},
            )
        )
        now_s = monotonic()
        self._node.fresh_until_s = inf
        self._node.timeline.restart(_INCARNATION, _SNAPSHOT, now_s)
        entry = Entry(key=KEY, cache=CACHE, value=b"v", snapshot=_SNAPSHOT, loaded_s=now_s, tags=(1,))
        hold(self._node.timeline.admit(entry, _INCARNATION) is Admission.OPEN, "nothing is kept")
        members = [Member(name="a-0"), Member(name="a-1")]
        membership = cast(
            "Any",
            SimpleNamespace(
                me=members[0], ring=Ring.of(members), epoch=b"12345678", previous=(), mismatch=id
            ),
        )
        sharing = Sharing(self._node, membership, PeersConfig())
        self._answers = Answering(self._node, membership, sharing=sharing)
        self._asker = Asker(hello=_HELLO, epoch=b"12345678", version=2)

    def ask(self, kind: int, body: bytes) -> None:
        """Call. What is no call must be refused; what is answered must be an answer."""
        try:
            answer = self._answers(Call(kind, body, 1.0), self._asker)
        except SnapringError as error:
            hold(type(error) is not SnapringError, f"a failure without a name: {error}")
            return
        if isinstance(answer, Coroutine):
            answer.close()
            return
        if kind == GET:
            hold(decode_get(body).definition == MEANING, "a question that means something else is answered")
            decode_reply(answer, source=Source.PEER, since_s=0.0)
        elif kind == PLAIN:
            hold(body[:8] == MEANING, "a plain question that means something else is answered")
            decode_value(answer)
        else:
            hold(kind in (KEEP, TAKE), f"a call of kind {kind} is answered")
            self._kept(kind, body, answer)

    def _kept(self, kind: int, body: bytes, answer: bytes) -> None:
        if kind == TAKE:
            decode_get(body)
            hold(
                all(copy.definition == MEANING for copy in decode_copies(answer)), "a copy of another meaning"
            )
            return
        hold(answer == b"", "copies are answered with something")
        newest = next(reversed(self._node.store.index), KEY)
        key, token = parse(newest)
        hold(
            token is None and key.canonical == newest,
            f"{newest!r} is in memory, and is no key's canonical text",
        )
        hold(self._node.store.index[newest].cache.name == key.cache, f"{newest!r} is kept for another cache")
