"""The store against a dumb oracle: bounded, consistent in all its indexes, fair between segments."""

import random
from collections import defaultdict
from math import inf

import pytest

from cluster.config import CacheConfig
from cluster.entries import ENTIRE_DATABASE, End, Entry, Versioned
from cluster.memory.commons import Commons
from cluster.snapshots import Snapshot
from cluster.store import Left, Store, cost_of

SNAPSHOT = Snapshot(10, 20)
CACHES = {name: CacheConfig(name=name, sql="SELECT 1") for name in ("users", "orders", "own")}


def entry(
    key: str, size: int = 20, *, cache: str = "users", tags: tuple[int, ...] = (), until_s: float = inf
) -> Entry:
    """An open entry whose value has ``size`` bytes."""
    return Entry(
        key=key.encode(),
        cache=CACHES[cache],
        value=bytes(size),
        snapshot=SNAPSHOT,
        loaded_s=0.0,
        tags=tags,
        until_s=until_s,
    )


def end(store: Store, held: Entry) -> None:
    """What applying a change does."""
    held.ended(End((30,), SNAPSHOT, 0.0))
    store.retire(held)


def audit(store: Store, shares: dict[str, int]) -> None:
    """Everything the store says of itself, worked out anew from its index."""
    used: dict[str, int] = defaultdict(int)
    tags: dict[int, set[Entry]] = defaultdict(set)
    for key, held in store.index.items():
        assert held.key == key
        assert held.cost == cost_of(held) or held.end is not None
        used[held.cache.name] += held.cost
        for tag in held.tags if held.end is None else ():
            tags[tag].add(held)
    assert store.bytes == sum(used.values()) <= store.max_bytes
    for cache in CACHES:
        held_here = [held for held in store.index.values() if held.cache.name == cache]
        assert store.cache_usage(cache) == (len(held_here), used[cache])
        assert used[cache] <= shares.get(cache, store.max_bytes - sum(shares.values()))
    for tag in range(1, 12):
        assert set(store.tagged(tag)) == tags[tag]
    assert len(store._tags) == sum(bool(entries) for entries in tags.values())
    assert set(store.tagged(ENTIRE_DATABASE)) == {held for held in store.index.values() if held.end is None}
    queued = [
        held
        for memory in (store._shared, *store._reserved.values())
        for segment in (memory._segments.values() if isinstance(memory, Commons) else (memory,))
        for queue in (segment._small, segment._main, segment._ended, segment.spare)
        for held in queue._entries.values()
    ]
    assert len(queued) == len(store.index)
    assert set(queued) == set(store.index.values())
    assert len(store._deadlines) == sum(key in store._deadlines._step_of for key in store.index)


@pytest.mark.parametrize("seed", range(6))
def test_every_index_agrees_after_every_operation(seed: int) -> None:
    """Random inserts, replacements, hits, ends, removals, expiries and clears leave no index behind."""
    chance = random.Random(seed)
    shares = {"own": 20_000}
    store = Store(60_000, shares)
    now_s = 0.0
    for _ in range(1_500):
        key = f"k{int(150 * chance.random() ** 2)}"
        held = store.get(key.encode())
        act = chance.random()
        gone_by_end = {one for one, kept_one in store.index.items() if kept_one.end is not None}
        if act < 0.72:
            cache = held.cache.name if held else chance.choice(tuple(CACHES))
            size = chance.choice((10, 10, 100, 1_000, 9_000, 30_000))
            tags = tuple({chance.randrange(1, 12) for _ in range(chance.randrange(4))})
            until_s = chance.choice((inf, now_s + chance.uniform(0, 50)))
            new = entry(key, size, cache=cache, tags=tags, until_s=until_s)
            room = shares.get(cache, 40_000)
            if act < 0.12:
                own = set(store.index) - spare_keys(store) - {key.encode()}
                kept = store.insert_spare(new)
                ended = {one for one in own if one not in store.index}
                assert ended <= gone_by_end
                assert store.get(key.encode()) is (new if kept else None)
            else:
                kept = store.insert(new)
                assert kept is (cost_of(new) <= room)
                assert store.get(key.encode()) is (new if kept else held)
        elif act < 0.82 and held is not None:
            held.frequency += 1
        elif act < 0.92:
            for touched in store.tagged(chance.randrange(1, 12))[:3]:
                end(store, touched)
        elif act < 0.96:
            assert store.remove(key.encode(), Left.DELETED) is (held is not None)
        elif act < 0.998:
            now_s += 1
            store.expire(now_s)
            assert not any(-inf < late.until_s <= now_s - 1 for late in store.index.values())
        else:
            store.clear()
        audit(store, shares)
    assert min(store.removed[left] for left in Left if left != Left.CLEARED) > 0


def spare_keys(store: Store) -> set[bytes]:
    """The keys of spare entries."""
    segments = (store._shared, *store._reserved.values())
    return {held.key for segment in segments for held in segment.spare._entries.values()}


def test_a_caches_own_segment_is_not_evicted_by_others() -> None:
    """However much the other caches load, what has memory of its own keeps it, and no more than it."""
    store = Store(100_000, {"own": 20_000})
    for number in range(10):
        assert store.insert(entry(f"own{number}", cache="own"))
    for number in range(2_000):
        store.insert(entry(f"user{number}"))
    assert store.cache_usage("own")[0] == 10
    for number in range(2_000):
        store.insert(entry(f"own{number}", cache="own"))
    assert 10_000 < store.cache_usage("own")[1] <= 20_000
    assert 70_000 < store.cache_usage("users")[1] <= 80_000


@pytest.mark.parametrize("reserved", [{"own": 1_000}, {"own": 1_001}, {"own": 0}, {"own": -1, "users": 1}])
def test_shares_that_leave_nothing_are_refused(reserved: dict[str, int]) -> None:
    """A budget that is shared out in full has no room for the caches that share; nor has a share of nothing."""
    with pytest.raises(ValueError, match="cannot be shared out"):
        Store(1_000, reserved)


def test_only_the_entry_that_is_here_is_kept() -> None:
    """Neither one that was replaced, nor one that left, nor another under its key."""
    store = Store(60_000)
    old, new = entry("k"), entry("k")
    assert not store.keeps(old)
    store.insert(old)
    assert (store.keeps(old), store.keeps(new)) == (True, False)
    store.insert(new)
    assert (store.keeps(old), store.keeps(new)) == (False, True)
    store.remove(b"k")
    assert not store.keeps(new)


class Heard:
    """A watcher that notes what it hears."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def left(self, key: bytes) -> None:
        self.keys.append(key)

    def cleared(self) -> None:
        self.keys.append(b"all")


def test_who_watches_hears_of_each_end_once() -> None:
    """What had ended already is no news when it leaves; and the end of all is one."""
    store, heard = Store(60_000), Heard()
    store.watcher = heard
    for key in ("ended", "removed", "cleared"):
        store.insert(entry(key))
    end(store, store.index[b"ended"])
    store.remove(b"ended")
    store.remove(b"removed")
    store.clear()
    assert heard.keys == [b"ended", b"removed", b"all"]
    assert (store.removed[Left.DELETED], store.removed[Left.CLEARED]) == (2, 1)


def test_tenants_are_counted_over_all_segments() -> None:
    """Where they are told apart."""
    store = Store(60_000, {"own": 20_000}, weigh=lambda _: 1)
    for key, cache in (("acme/a", "users"), ("acme/b", "own"), ("zeta/a", "own")):
        store.insert(entry(key, cache=cache))
    usage = store.tenant_usage()
    assert {tenant: count for tenant, (count, _) in usage.items()} == {"acme": 2, "zeta": 1}
    assert sum(size for _, size in usage.values()) == store.bytes
    alone = Store(60_000)
    alone.insert(entry("acme/a"))
    assert alone.tenant_usage() == {}


def test_everything_that_is_kept_for_an_entry_is_paid() -> None:
    """Its key and value by their length, and each tag, deadline and version."""
    plain = cost_of(entry("k", 0))
    assert cost_of(entry("k" * 1001, 0)) - plain in range(1000, 1048)
    assert cost_of(entry("k", 1000)) - plain in range(1000, 1048)
    assert cost_of(entry("k", 0, tags=(1, 2))) - cost_of(entry("k", 0, tags=(1,))) > 100
    assert cost_of(entry("k", 0, until_s=5.0)) - plain > 200
    versioned = Versioned(
        key=b"k", cache=CACHES["users"], value=b"", snapshot=SNAPSHOT, loaded_s=0.0, tags=()
    )
    versioned.version = 5
    assert cost_of(versioned) > plain


def test_ended_entries_leave_before_open_ones() -> None:
    """Room is made from what ended, oldest end first, however much it was used."""
    store = Store(60_000)
    number = 0
    while not store.removed["evicted"]:
        number += 1
        store.insert(entry(f"k{number}"))
    ended = [store.index[key] for key in list(store)[5:9]]
    for old in ended:
        old.frequency = 3
        end(store, old)
    kept_open = {held.key for held in store.index.values() if held.end is None}
    for place, expected in enumerate(ended):
        assert expected.key in store.index
        store.insert(entry(f"new{place}"))
        assert expected.key not in store.index
    assert kept_open <= set(store)


def test_an_ended_entry_stays_readable_but_answers_to_no_tag() -> None:
    """What ended is still there for stale and exact reads, and a second end changes nothing."""
    store = Store(60_000)
    held = entry("k", tags=(7, 8))
    store.insert(held)
    for _ in range(2):
        end(store, held)
    assert store.get(b"k") is held
    assert store.tagged(7) == store.tagged(8) == store.tagged(ENTIRE_DATABASE) == ()
    assert store.removed["replaced"] == 0


def test_retiring_what_has_been_replaced_changes_nothing() -> None:
    """An entry that is no longer in the store cannot take its successor out of the tags."""
    store = Store(60_000)
    old, new = entry("k", tags=(7,)), entry("k", tags=(7,))
    store.insert(old)
    store.insert(new)
    end(store, old)
    assert store.tagged(7) == (new,)
    assert store.removed["ended"] == 0


def test_a_replacement_inherits_what_the_key_has_earned() -> None:
    """A used key that is loaded again after a change outlives a scan, as it would have without one."""
    store = Store(60_000)
    for number in range(80):
        store.insert(entry(f"k{number}"))
    for key in list(store)[:5]:
        store.index[key].frequency = 3
        end(store, store.index[key])
        store.insert(entry(key.decode()))
    for number in range(300):
        store.insert(entry(f"scan{number}"))
    assert {f"k{number}".encode() for number in range(5)} <= set(store)
    assert store.removed["replaced"] == 5


def test_what_is_larger_than_its_segment_is_refused_and_counted() -> None:
    """The refusal evicts nobody, and leaves the older entry under the key in place."""
    store = Store(60_000, {"own": 10_000})
    first, other = entry("k", cache="own"), entry("other", cache="own")
    store.insert(first)
    store.insert(other)
    assert not store.insert(entry("k", 10_000, cache="own"))
    assert store.insert(entry("large", 10_000))
    assert store.index[b"k"] is first
    assert store.index[b"other"] is other
    assert store.removed["too_large"] == 1


def test_entries_leave_at_the_end_of_their_time_to_live() -> None:
    """None leaves early, all within half a second after; what was loaded again has its new time."""
    store = Store(1_000_000)
    for number in range(100):
        store.insert(entry(f"k{number}", until_s=100 + number / 10))
    store.insert(entry("k0", until_s=200.0))
    store.insert(entry("forever"))
    assert store.expire(99.9) == 0
    assert store.expire(105.0) == pytest.approx(50, abs=5)
    assert all(held.until_s > 104.5 for held in store.index.values())
    assert store.expire(150.0) + store.removed["expired"] > 99
    assert set(store) == {b"k0", b"forever"}
    assert store.expire(1e9) == 1
    assert store.removed["expired"] == 100


def test_an_ended_entry_leaves_at_its_deadline_too() -> None:
    """That its end has overwritten ``until_s`` does not make it stay for ever."""
    store = Store(60_000)
    held = entry("k", until_s=10.0)
    store.insert(held)
    end(store, held)
    assert store.expire(10.0) == 1
    assert len(store) == 0


def test_one_expiry_is_bounded_and_the_next_goes_on() -> None:
    """Many entries due at once are spread over calls, so that none of them holds up the loop."""
    store = Store(10_000_000)
    for number in range(5_000):
        store.insert(entry(f"k{number}", until_s=1.0))
    assert [store.expire(2.0) for _ in range(4)] == [2_000, 2_000, 1_000, 0]


def test_no_row_costs_memory_too() -> None:
    """A cached "no row" has no value, yet an honest cost."""
    store = Store(60_000)
    nothing = Entry(key=b"k", cache=CACHES["users"], value=None, snapshot=SNAPSHOT, loaded_s=0.0, tags=(1, 2))
    assert store.insert(nothing)
    assert 500 < store.bytes < 1_500


def test_the_state_is_summarised() -> None:
    """``repr`` says how full the store is and why entries left."""
    store = Store(60_000)
    store.insert(entry("k"))
    store.insert(entry("k"))
    assert repr(store) == f"<Store 1 entries, {store.bytes} of 60000 bytes; replaced=1>"


def test_spare_entries_are_counted() -> None:
    """Those that found no room, too."""
    store = Store(60_000)
    assert store.insert_spare(entry("k"))
    assert store.spare_usage() == (1, store.bytes)
    number = 0
    while store.insert(entry(f"own{number}", 1_000)) and store.spare_usage()[0]:
        number += 1
    while not store.removed[Left.EVICTED]:
        store.insert(entry(f"own{number}", 1_000))
        number += 1
    assert not store.insert_spare(entry("k", 1_000))
    assert (store.removed[Left.NO_ROOM], store.get(b"k")) == (1, None)
