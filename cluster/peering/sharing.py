"""Entries where they will be wanted: at the backup, at a new owner, at who asks for one again and again.

* **fill**: what this node has loaded for a key of its own goes to the slot's backup, a little later, so that the
  loss of this node finds a warm one. There it takes spare room only: it never costs the backup an entry of its own.
* **fetch**: for a while after the ring has changed, and changed again, what is missing here is asked of the slot's
  owners and backups before the changes; and a key that this node forwards often, of its owner.
* **hand over**: who leaves gives what is used most to the new owners.

Everything is as exact as a load, and judged like one (`cluster.peering.copies`); everything is bounded, may be
lost and come late, and no read waits for it but a fetch, for a part of its time.
"""

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from time import monotonic
from typing import Final

from cluster.config import CacheConfig, PeersConfig
from cluster.entries import Admission, Entry
from cluster.memory.policy import MAX_FREQUENCY
from cluster.node import Node
from cluster.peering.copies import KEEP, TAKE, Copy, copy_of, decode_copies, encode_copies, entry_of, size_of
from cluster.peering.messages import Get, definitions, encode_get
from cluster.requests import BOUNDED
from peers.channel import Channel
from peers.errors import MessageInvalid
from peers.membership import Membership
from peers.ring import Ring
from peers.wire import Call
from snapring.errors import KeyInvalid, SnapringError
from snapring.keys import Key, parse, slot_of

_GATHER_S: Final = 0.01
"""How long news for a backup is gathered: what is asked for twice within it travels once."""
_PAGE: Final = 256
_PAGE_BYTES: Final = 512 * 1024
_MAX_COPY_BYTES: Final = 4 * 2**20
_MAX_WAITING: Final = 4096
_AT_ONCE: Final = 4096
_FETCH_PART: Final = 0.25
"""How much of a hop's time one peer may take to give a copy, and all together twice as much: a try before the load."""
_FETCHES: Final = 256
_HEAT_KEYS: Final = 4096
_HOT: Final = 16
"""So many forwards of a key, of about `_HEAT_KEYS` x `_HOT` / 2 forwards of all keys, make it hot."""


class Sharing:
    """The copies that ``node`` gives to the others and takes from them. For one event loop: `run` it.

    ``filled`` and ``handed_over`` count copies sent, ``dropped`` those that found no room to wait, ``kept`` copies
    that came and were admitted by the others' doing, ``fetched`` those that this node asked for, ``missed`` the
    times when nobody had one.
    """

    def __init__(
        self,
        node: Node,
        membership: Membership,
        config: PeersConfig,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._node = node
        self._membership = membership
        self._config = config
        self._clock = clock
        self._definitions = definitions(node.config.caches.values())
        self._max_copy_bytes = min(_MAX_COPY_BYTES, config.max_message_bytes // 2)
        self._page_bytes = min(_PAGE_BYTES, config.max_message_bytes // 4)
        self._fills: defaultdict[str, OrderedDict[bytes, None]] = defaultdict(OrderedDict)
        self._news = asyncio.Event()
        self._fetches: dict[bytes, asyncio.Task[None]] = {}
        self._heat: Counter[bytes] = Counter()
        self._forwards = 0
        self.filled = self.dropped = self.kept = self.fetched = self.missed = self.handed_over = 0
        node.on_admitted = self._admitted

    def __repr__(self) -> str:
        return (
            f"<Sharing filled={self.filled} kept={self.kept} fetched={self.fetched} dropped={self.dropped}>"
        )

    async def run(self) -> None:
        """Send fills until cancelled."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await asyncio.sleep(_GATHER_S)
                await asyncio.gather(*(self._fill(name) for name in tuple(self._fills)))
        finally:
            for fetch in self._fetches.values():
                fetch.cancel()

    # -- what the others give and ask for --------------------------------------------------------------

    def keep(self, body: bytes) -> bytes:
        """Admit the copies in ``body``. Raises `MessageInvalid`."""
        me, ring = self._membership.me.name, self._membership.ring
        for copy in decode_copies(body):
            self.kept += self._admit(copy, spare=ring.owner(slot_of(copy.key)) != me)
        return b""

    def take(self, get: Get) -> bytes:
        """The copy that was asked for, or nothing."""
        entry = self._node.store.index.get(get.key)
        found = self._copy(entry) if entry else None
        return encode_copies([found] if found and found.definition == get.definition else [])

    # -- what this node asks for -----------------------------------------------------------------------

    async def fetch_moved(self, key: Key, deadline_s: float) -> None:
        """Have what the owners before the last changes have of ``key``, which this node owns now and has not."""
        previous = self._membership.previous
        if not previous or key.cache not in self._definitions:
            return
        me, slot = self._membership.me.name, key.slot
        if self._membership.ring.owner(slot) != me or self._has(key.canonical):
            return
        names = previous_owners(previous, slot, me)
        if names:
            await self._fetch(key, names, deadline_s)

    async def fetch(self, key: Key, deadline_s: float) -> None:
        """Have what the owner of ``key``, or its backup, has of it, if this node has not and is not the owner."""
        ring, slot, me = self._membership.ring, key.slot, self._membership.me.name
        if key.cache not in self._definitions or ring.owner(slot) == me or self._has(key.canonical):
            return
        names = (ring.owner(slot), ring.backup(slot))
        await self._fetch(key, [name for name in names if name is not None and name != me], deadline_s)

    def forwarded(self, canonical: bytes, slot: int) -> None:
        """A read of this key has been forwarded: from some number on a copy is fetched, for the next ones."""
        self._forwards += 1
        if len(self._heat) >= _HEAT_KEYS or self._forwards >= _HEAT_KEYS * _HOT // 2:
            self._forwards = 0
            self._heat = Counter({each: count // 2 for each, count in self._heat.items() if count > 1})
        self._heat[canonical] += 1
        if self._heat[canonical] >= _HOT:
            self._begin(parse(canonical)[0], (self._membership.ring.owner(slot),))

    async def _fetch(self, key: Key, names: Sequence[str], deadline_s: float) -> None:
        fetch = self._begin(key, names)
        if fetch is not None:
            await asyncio.wait((fetch,), timeout=max(0.0, deadline_s - self._clock()))

    def _begin(self, key: Key, names: Sequence[str]) -> "asyncio.Task[None] | None":
        """The fetch of ``key`` that is under way; None where there are too many."""
        canonical = key.canonical
        fetch = self._fetches.get(canonical)
        if fetch is None and len(self._fetches) < _FETCHES:
            fetch = self._fetches[canonical] = asyncio.create_task(self._from(key, names))
            fetch.add_done_callback(lambda _: self._fetches.pop(canonical))
        return fetch

    async def _from(self, key: Key, names: Sequence[str]) -> None:
        get = Get(key=key.canonical, definition=self._definitions[key.cache], consistency=BOUNDED)
        most_s = self._config.hop_timeout_s * _FETCH_PART
        until_s = self._clock() + 2 * most_s
        for name in names:
            channel = self._membership.channel(name)
            timeout_s = min(most_s, until_s - self._clock())
            if channel is None or timeout_s <= 0.0:
                continue
            try:
                copies = decode_copies(await channel.call(Call(TAKE, encode_get(get), timeout_s)))
                if any(self._admit(copy) for copy in copies if copy.key == get.key):
                    self.fetched += 1
                    return
            except SnapringError:
                continue
        self.missed += 1
        self._heat.pop(key.canonical, None)

    # -- what this node gives --------------------------------------------------------------------------

    async def hand_over(self, deadline_s: float) -> None:
        """Give what this node has, the most used first, to who owns it without this node, by ``deadline_s``."""
        me, ring = self._membership.me.name, self._membership.ring
        owned: dict[str, list[list[bytes]]] = {}
        for n, entry in enumerate(tuple(self._node.store.index.values())):
            owner = ring.owner(slot_of(entry.key))
            by_use = owned.setdefault(owner, [[] for _ in range(MAX_FREQUENCY + 1)])
            by_use[MAX_FREQUENCY - entry.frequency].append(entry.key)
            if n % _AT_ONCE == 0:
                await asyncio.sleep(0)
        others = [(name, chain.from_iterable(by_use)) for name, by_use in owned.items() if name != me]
        await asyncio.gather(*(self._give(name, keys, deadline_s) for name, keys in others))

    async def _give(self, name: str, keys: Iterable[bytes], deadline_s: float) -> None:
        for page in self._pages(keys):
            if self._clock() >= deadline_s or not await self._send(name, page):
                return
            self.handed_over += len(page)

    def describe(self) -> Mapping[str, object]:
        """Its counters, for status, and what those copies take that nobody has used yet."""
        entries, size = self._node.store.spare_usage()
        return {
            "copies_spare": entries,
            "copies_spare_bytes": size,
            "copies_filled": self.filled,
            "copies_handed_over": self.handed_over,
            "copies_dropped": self.dropped,
            "copies_kept": self.kept,
            "copies_fetched": self.fetched,
            "copies_missed": self.missed,
        }

    def _admitted(self, entry: Entry) -> None:
        """The node has loaded ``entry`` and keeps it."""
        ring, slot = self._membership.ring, slot_of(entry.key)
        backup = ring.backup(slot)
        if backup is None or ring.owner(slot) != self._membership.me.name:
            return
        waiting = self._fills[backup]
        waiting[entry.key] = None
        if len(waiting) > _MAX_WAITING:
            waiting.popitem(last=False)
            self.dropped += 1
        self._news.set()

    async def _fill(self, name: str) -> None:
        waiting = self._fills.pop(name)
        for page in self._pages(waiting):
            if not await self._send(name, page):
                self.dropped += len(page)
                return
            self.filled += len(page)

    def _pages(self, keys: Iterable[bytes]) -> Iterator[Sequence[Copy]]:
        """What there is of ``keys``, as it is when its page is made; not what is too large to travel."""
        page: list[Copy] = []
        size = 0
        for key in keys:
            entry = self._node.store.index.get(key)
            copy = self._copy(entry) if entry else None
            if copy is None or size_of(copy) > self._max_copy_bytes:
                continue
            page.append(copy)
            size += size_of(copy)
            if len(page) == _PAGE or size >= self._page_bytes:
                yield page
                page, size = [], 0
        if page:
            yield page

    def _has(self, key: bytes) -> bool:
        entry = self._node.store.index.get(key)
        return entry is not None and entry.until_s > self._clock()

    def _copy(self, entry: Entry) -> Copy | None:
        return copy_of(entry, self._node.timeline, self._definitions[entry.cache.name], self._clock())

    async def _send(self, name: str, page: Sequence[Copy]) -> bool:
        channel: Channel | None = self._membership.channel(name)
        if channel is None:
            return False
        try:
            await channel.call(Call(KEEP, encode_copies(page), self._config.hop_timeout_s))
        except SnapringError:
            return False
        await asyncio.sleep(sum(map(size_of, page)) / self._config.copy_rate_bytes)
        return True

    def _admit(self, copy: Copy, *, spare: bool = False) -> bool:
        """Whether ``copy`` is now here; no, where what is here is as good."""
        node, now_s = self._node, self._clock()
        cache = self._cache(copy)
        if cache is None or self._has(copy.key):
            return False
        entry = entry_of(copy, cache, node.timeline, now_s)
        return node.timeline.admit(entry, copy.incarnation, spare=spare) is Admission.OPEN

    def _cache(self, copy: Copy) -> CacheConfig | None:
        """The cache that ``copy`` is for, if it means here what it means to its sender. Raises `MessageInvalid`."""
        try:
            key, _ = parse(copy.key)
        except KeyInvalid as error:
            raise MessageInvalid(f"a copy of no key: {error}") from error
        if key.canonical != copy.key or self._definitions.get(key.cache) != copy.definition:
            return None
        return self._node.config.caches[key.cache]


def previous_owners(previous: Iterable[Ring], slot: int, me: str) -> Sequence[str]:
    """Who may have what was in ``slot`` under those rings of ``previous`` in which ``me`` did not own it.

    Each once, in the order of the rings, of each the owner before the backup.
    """
    others = [ring for ring in previous if ring.owner(slot) != me]
    names = chain.from_iterable((ring.owner(slot), ring.backup(slot)) for ring in others)
    return [name for name in dict.fromkeys(names) if name is not None and name != me]
