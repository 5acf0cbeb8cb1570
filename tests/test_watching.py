"""What a node tells those who keep values of its: never too little, for however slow or forgetful they are."""

import asyncio
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.config import CacheConfig, WatchConfig
from cluster.entries import Batch, Change, Entry, Timeline
from cluster.snapshots import Snapshot
from cluster.store import Store, cost_of
from cluster.watching import Hub, News, Place, Subscription
from cluster.watching.log import KEY_BYTES, Log
from snapring.errors import NodeStopping

CACHE = CacheConfig(name="c", sql="SELECT $1")
KEYS = [b"c:%d" % number for number in range(4)]
SMALL = WatchConfig(
    log_keys=5, log_size_bytes=5 * KEY_BYTES + 20, event_keys=2, gather_s=0.0, heartbeat_s=0.02
)
ROOMY = replace(SMALL, log_keys=100, log_size_bytes=10_000)
FOREVER = 60.0


def entry(key: bytes, value: int, at: int, *, until_s: float = 1e9) -> Entry:
    """An entry as it is loaded at snapshot ``at``."""
    return Entry(
        key=key,
        cache=CACHE,
        value=b"%d" % value,
        snapshot=Snapshot(at, at),
        loaded_s=0.0,
        tags=(1 + KEYS.index(key),),
        until_s=until_s,
    )


@dataclass(slots=True)
class Kept:
    """A value that a client keeps, and what it was told of it."""

    value: int
    since: Place


@dataclass(slots=True)
class Client:
    """Keeps values by the rules that are published, and nothing else."""

    subscription: Subscription | None = None
    log: int | None = None
    place: Place | None = None
    kept: dict[bytes, Kept] = field(default_factory=dict)

    def hear(self, news: News) -> None:
        """The rules for an event."""
        self.log, self.place = news.place.log, news.place
        if news.skipped:
            self.kept.clear()
        for key in news.keys:
            self.kept.pop(key, None)


class Model:
    """A database with one table of counters, a node that follows it a poll at a time, and clients."""

    def __init__(self, config: WatchConfig) -> None:
        self.store = Store(3 * cost_of(entry(KEYS[0], 10**6, 1)))
        self.timeline = Timeline(self.store, log_retention_s=1e9, log_max_changes=10**6)
        self.hub = Hub(config, self.store, Random(1))
        self.changes: list[bytes] = []  # of transaction 1 + n
        self.polling: Batch | None = None
        self.clients = [Client(), Client()]
        self.polls = 0
        self.incarnation = 1
        self.timeline.restart(1, Snapshot(1, 1), 0.0)
        self.hub.moved(self.timeline)

    @property
    def now(self) -> int:
        """The snapshot that the database would give."""
        return 1 + len(self.changes)

    def truth(self, key: bytes, at: int) -> int:
        """The counter under ``key`` as snapshot ``at`` sees it."""
        return self.changes[: at - 1].count(key)

    def commit(self, key: bytes) -> None:
        """A transaction changes a counter."""
        self.changes.append(key)

    def load(self, key: bytes) -> None:
        """What is there now comes into memory."""
        self.timeline.admit(entry(key, self.truth(key, self.now), self.now), self.incarnation)

    def evict(self, key: bytes) -> None:
        """An entry leaves memory."""
        self.store.remove(key)

    def ask(self) -> None:
        """A poll is sent."""
        watermark = self.timeline.watermark
        assert watermark is not None
        self.polls += 1
        batch = tuple(
            Change(xid, 1 + KEYS.index(self.changes[xid - 1])) for xid in range(watermark.xmax, self.now)
        )
        self.polling = Batch(
            incarnation=self.incarnation,
            snapshot=Snapshot(self.now, self.now),
            sent_s=float(self.polls),
            changes=batch,
        )

    def poll(self) -> None:
        """The poll that was sent comes back."""
        if self.polling is not None:
            self.timeline.apply(self.polling)
            self.polling = None
            self.hub.moved(self.timeline)

    def void(self) -> None:
        """The feed lost its way: everything is void."""
        self.polls += 1
        self.polling = None
        self.timeline.restart(self.incarnation, Snapshot(self.now, self.now), float(self.polls))
        self.hub.moved(self.timeline)

    def watch(self, client: Client, *, anew: bool) -> None:
        """A client opens its stream, or loses it and opens another."""
        if client.subscription is not None:
            client.subscription.close()
        if anew:
            client.kept.clear()
        client.subscription = self.hub.subscribe(after=None if anew else client.place)
        client.hear(client.subscription.take())

    def leave(self, client: Client) -> None:
        """A client's stream ends; it keeps what it has."""
        if client.subscription is not None:
            client.subscription.close()
            client.subscription = None

    def get(self, client: Client, key: bytes) -> None:
        """A tracked read of what memory holds."""
        held = self.store.get(key)
        if client.subscription is None or held is None or held.end is not None:
            return
        as_of, _ = self.timeline.as_of(held)
        since = self.hub.since(as_of, self.incarnation)
        assert since is not None, "somebody watches"
        if since.log == client.log:
            client.kept[key] = Kept(int(held.value or b""), since)

    def hear(self, client: Client) -> None:
        """An event: afterwards whatever the client claims must be so."""
        if client.subscription is None:
            return
        news = client.subscription.take()
        client.hear(news)
        if news.watermark is not None:
            for key, kept in client.kept.items():
                if news.place.tick >= kept.since.tick:
                    assert kept.value == self.truth(key, news.watermark.xmax), key


NUMBER = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["commit", "load", "evict"]), NUMBER),
    st.tuples(st.sampled_from(["ask", "poll", "ask", "poll", "ask", "poll", "void"]), st.just(0)),
    st.tuples(st.sampled_from(["watch", "return", "leave", "hear", "hear", "hear"]), st.integers(0, 1)),
    st.tuples(st.just("get"), st.integers(0, 7)),
)


def run(steps: list[tuple[str, int]], config: WatchConfig) -> None:
    """Take ``steps``, then let everybody hear everything."""
    model = Model(config)
    for name, number in [
        *steps,
        ("ask", 0),
        ("poll", 0),
        ("ask", 0),
        ("poll", 0),
        *[("hear", 0), ("hear", 1)] * 4,
    ]:
        client = model.clients[number % 2]
        match name:
            case "watch" | "return":
                model.watch(client, anew=name == "watch" or client.place is None)
            case "leave" | "hear":
                getattr(model, name)(client)
            case "get":
                model.get(client, KEYS[number // 2])
            case "commit" | "load" | "evict":
                getattr(model, name)(KEYS[number])
            case _:
                getattr(model, name)()


@settings(max_examples=400)
@given(steps=st.lists(STEPS, max_size=60), roomy=st.booleans())
@example(  # loaded ahead of the watermark, while a poll of before is under way
    steps=[("watch", 0), ("ask", 0), ("commit", 0), ("load", 0), ("get", 0), ("poll", 0), ("hear", 0)],
    roomy=True,
)
@example(  # replaced by what has seen the change that would have ended it
    steps=[("watch", 0), ("load", 0), ("ask", 0), ("poll", 0), ("get", 0), ("commit", 0), ("load", 0)],
    roomy=True,
)
@example(  # gone and come back
    steps=[
        ("watch", 0),
        ("load", 0),
        ("get", 0),
        ("leave", 0),
        ("commit", 0),
        ("ask", 0),
        ("poll", 0),
        ("return", 0),
    ],
    roomy=True,
)
@example(  # evicted, then changed
    steps=[("watch", 0), ("load", 0), ("get", 0), ("evict", 0), ("commit", 0)], roomy=True
)
@example(steps=[("watch", 0), ("load", 0), ("get", 0), ("void", 0), ("commit", 0)], roomy=True)
@example(  # more keys than an event has
    steps=[
        ("watch", 0), ("load", 0), ("load", 1), ("load", 2), ("get", 4), ("evict", 0), ("evict", 1), ("commit", 2),
        ("ask", 0), ("poll", 0), ("hear", 0),
    ],
    roomy=True,
)  # fmt: skip
def test_a_client_that_keeps_the_rules_is_never_wrong(steps: list[tuple[str, int]], roomy: bool) -> None:
    """Whatever is evicted, replaced, voided, missed or read on from: what it keeps is true at each watermark."""
    run(steps, ROOMY if roomy else SMALL)


@settings(max_examples=300)
@given(
    steps=st.lists(st.sampled_from(["append", "append", "append", "turn", "skip"]), max_size=60),
    bound=st.integers(1, 10),
    most=st.integers(1, 4),
    data=st.data(),
)
def test_the_log_reads_on_from_a_place_or_says_that_it_cannot(
    steps: list[str], bound: int, most: int, data: st.DataObject
) -> None:
    """Against a list of all that ever happened."""
    log = Log(7, max_keys=bound, max_bytes=10**6)
    all_keys: list[tuple[int, bytes]] = []
    skipped_until = 0
    for number, step in enumerate(steps):
        if step == "append":
            all_keys.append((log.tick, b"%d" % number))
            log.append(b"%d" % number)
        elif step == "turn":
            log.turn()
        else:
            log.skip()
            skipped_until = log.tick
    tick = data.draw(st.integers(0, log.tick + 1))
    position = log.position(Place(7, tick))
    expected = [key for at, key in all_keys if at >= tick]
    if tick > log.tick or tick < skipped_until or len(expected) > bound:
        assert position is None
        return
    assert position is not None
    found: list[bytes] = []
    while position != log.end:
        keys, place = log.read(position, most)
        found += keys
        position += len(keys)
        assert place.tick <= log.tick
        assert [key for at, key in all_keys if at < place.tick and at >= tick] == [
            key for at, key in all_keys if at < place.tick and key in found
        ]
    assert found == expected
    assert log.position(Place(8, tick)) is None


def test_the_log_keeps_within_its_bytes() -> None:
    """Long keys push out more of the older ones."""
    log = Log(1, max_keys=10**6, max_bytes=10 * (KEY_BYTES + 1))
    for _ in range(5000):
        log.append(b"k")
    assert len(log) == 10
    log.append(b"k" * (KEY_BYTES + 2))
    assert len(log) == 9


def hub_of(config: WatchConfig = ROOMY) -> tuple[Hub, Timeline, Store]:
    """A hub at a first watermark."""
    model = Model(config)
    return model.hub, model.timeline, model.store


def move(hub: Hub, timeline: Timeline, to: int) -> None:
    """The watermark moves, and nothing has changed."""
    timeline.apply(Batch(incarnation=1, snapshot=Snapshot(to, to), sent_s=float(to), changes=()))
    hub.moved(timeline)


def test_nothing_is_recorded_before_anybody_watches() -> None:
    """Nor is anything vouched for."""
    hub, _, store = hub_of()
    assert (store.watcher, hub.recording, hub.since(Snapshot(1, 1), 1)) == (None, False, None)
    hub.subscribe()
    assert store.watcher is hub
    assert hub.since(Snapshot(1, 1), 1) is not None
    assert hub.since(Snapshot(1, 1), 2) is None


def test_who_comes_back_reads_on_until_the_log_is_full() -> None:
    """Then nothing is recorded any more, and nobody reads on."""
    hub, _, store = hub_of(SMALL)
    first = hub.subscribe()
    place = first.take().place
    first.close()
    for _ in range(SMALL.log_keys):
        hub.left(KEYS[0])
    again = hub.subscribe(after=place)
    assert not again.take().skipped
    again.close()
    hub.left(KEYS[0])
    assert (store.watcher, hub.recording) == (None, False)
    assert hub.subscribe(after=place).take().skipped


def test_who_is_slow_has_skipped_what_the_log_has_forgotten() -> None:
    """The log goes on as long as anybody is there; the others hear everything."""
    hub, _, _ = hub_of(SMALL)
    slow, quick = hub.subscribe(), hub.subscribe()
    heard = 0
    slow.take()
    for _ in range(SMALL.log_keys + 1):
        hub.left(KEYS[0])
        heard += len(quick.take().keys)
    assert (slow.take().skipped, heard, hub.recording) == (True, SMALL.log_keys + 1, True)


def test_only_the_keys_asked_for_are_told() -> None:
    """By the beginnings of their texts; each once an event."""
    hub, _, _ = hub_of()
    some, everything = hub.subscribe([b"c:1", b"acme/"]), hub.subscribe()
    for key in (b"c:1", b"c:2", b"c:1"):
        hub.left(key)
    told = [news.keys for news in (some.take(), some.take())]
    assert told == [[b"c:1"], [b"c:1"]]
    assert everything.take().keys == [b"c:1", b"c:2"]


def test_an_event_that_more_follow_bears_no_watermark() -> None:
    """Its place is one that everything before has been told of."""
    hub, timeline, _ = hub_of()
    subscription = hub.subscribe()
    for number in range(3):
        hub.left(KEYS[number])
        move(hub, timeline, 10 + number)
    first, second = subscription.take(), subscription.take()
    assert (first.watermark, first.place.tick) == (None, 1)
    assert (second.watermark, second.place.tick) == (Snapshot(12, 12), 3)


async def test_a_key_that_leaves_wakes_who_waits() -> None:
    """However far the next heartbeat is."""
    hub, _, _ = hub_of(replace(ROOMY, heartbeat_s=FOREVER))
    subscription = hub.subscribe()
    assert await subscription.next()
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    hub.left(KEYS[0])
    assert (await waiting).keys == [KEYS[0]]
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    hub.cleared()
    assert (await waiting).skipped


async def test_a_watermark_is_told_without_news() -> None:
    """At the next heartbeat, the newest of several."""
    hub, timeline, _ = hub_of()
    subscription = hub.subscribe()
    first = await subscription.next()
    move(hub, timeline, 5)
    move(hub, timeline, 6)
    second = await subscription.next()
    assert (first.watermark, second.watermark, second.keys) == (Snapshot(1, 1), Snapshot(6, 6), [])
    assert second.place.tick == first.place.tick + 2


async def test_the_same_poll_twice_is_one_tick() -> None:
    """A failed poll moves nothing."""
    hub, timeline, _ = hub_of()
    place = hub.subscribe().take().place
    hub.moved(timeline)
    assert hub.subscribe().take().place == place


async def test_a_hub_that_stops_ends_its_subscriptions() -> None:
    """Those that wait, and those that come."""
    hub, _, _ = hub_of(replace(ROOMY, heartbeat_s=FOREVER))
    subscription = hub.subscribe()
    await subscription.next()
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    hub.stop()
    with pytest.raises(NodeStopping):
        await waiting
    with pytest.raises(NodeStopping):
        await hub.subscribe().next()


async def test_pages_of_nothing_asked_for_are_passed_over() -> None:
    """Until there is something to say."""
    hub, _, _ = hub_of(replace(ROOMY, heartbeat_s=FOREVER))
    subscription = hub.subscribe([b"c:3"])
    await subscription.next()
    for key in (*KEYS[:3], *KEYS):
        hub.left(key)
    news = await subscription.next()
    assert news.keys == [b"c:3"]
