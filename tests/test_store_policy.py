"""The eviction policy: what it must keep under loads of known kinds, and what its parts promise."""

import random

import pytest

from cluster.config import CacheConfig
from cluster.entries import Entry
from cluster.memory.deadlines import Deadlines
from cluster.memory.ghost import Ghost
from cluster.memory.policy import VISITS, Segment
from cluster.snapshots import Snapshot

CACHE = CacheConfig(name="users", sql="SELECT 1")
SNAPSHOT = Snapshot(1, 1)


def entry(number: int, cost: int = 1) -> Entry:
    """An entry of the given cost."""
    made = Entry(key=b"%d" % number, cache=CACHE, value=b"", snapshot=SNAPSHOT, loaded_s=0.0, tags=())
    made.cost = cost
    return made


def hit_ratio(trace: list[int], capacity: int) -> float:
    """Hits per access, hits doing no more than the doors do."""
    segment, index, hits = Segment(capacity), dict[int, Entry](), 0
    for number in trace:
        held = index.get(number)
        if held is not None:
            hits += 1
            held.frequency = min(held.frequency + 1, 3)
            continue
        index[number] = entry(number)
        for loser in segment.insert(index[number]):
            del index[int(loser.key)]
        assert segment.used == len(index) <= capacity
    return hits / len(trace)


def skewed(count: int, seed: int = 3) -> list[int]:
    """Reads of which few keys have most."""
    chance = random.Random(seed)
    return [int(chance.paretovariate(0.6)) % 20_000 for _ in range(count)]


@pytest.mark.parametrize("length", [110, 150, 200, 300])
def test_a_loop_larger_than_memory_hits(length: int) -> None:
    """Of a loop, close to what fits is kept; FIFO, LRU and plain S3-FIFO keep nothing."""
    assert hit_ratio([place % length for place in range(60 * length)], 100) > 0.85 * 99 / length


def test_a_scan_does_not_flush_what_is_used() -> None:
    """Keys read once, as many as eight times the capacity, cost the others next to nothing."""
    reads = skewed(20_000)
    quiet = hit_ratio(reads, 500)
    scanned, fresh = [], iter(range(10**6, 10**7))
    for place, number in enumerate(reads):
        scanned.append(number)
        if place % 5 == 0:
            scanned.append(next(fresh))
    assert hit_ratio(scanned, 500) * len(scanned) / len(reads) > 0.97 * quiet


def test_what_is_used_twice_in_short_succession_hits_the_second_time() -> None:
    """Small grows as far as keys need that come twice and never again."""
    trace = [number for start in range(0, 60_000, 50) for number in [*range(start, start + 50)] * 2]
    assert hit_ratio(trace, 1_000) > 0.49


def test_old_favourites_make_way_for_new_ones() -> None:
    """After the load has moved to other keys, the hit ratio is soon that of before."""
    reads = skewed(20_000)
    moved = [number + 10**6 for number in skewed(20_000, seed=4)]
    assert hit_ratio(reads + moved, 500) > 0.97 * (hit_ratio(reads, 500) + hit_ratio(moved, 500)) / 2


def test_one_insert_does_a_bounded_amount_of_work() -> None:
    """Even where every entry was used, an eviction looks at a bounded number of them."""
    segment = Segment(10_000)
    held = [entry(number) for number in range(10_000)]
    for one in held:
        segment.insert(one)
        one.frequency = 3
    segment.insert(entry(10**6))
    assert sum(one.frequency < 3 for one in held) < 200


def test_costs_of_all_sizes_stay_within_the_bound() -> None:
    """A large entry displaces many small ones, and never more than the bound is held."""
    chance = random.Random(5)
    segment, index = Segment(10_000), dict[bytes, Entry]()
    for number in range(5_000):
        new = entry(number, chance.choice((1, 10, 100, 9_000, 10_000)))
        for loser in segment.insert(new):
            assert loser is not new
            del index[loser.key]
        index[new.key] = new
        assert segment.used == sum(held.cost for held in index.values()) <= 10_000
        assert segment.count == len(index)


def test_the_ghost_remembers_and_forgets() -> None:
    """A trace is given back once; the youngest traces are found through every change of size."""
    ghost = Ghost()
    for number in range(1, 3_000):
        ghost.remember(b"%d" % number, number)
        ghost.fit(1_000)
    recalled = [ghost.recall(b"%d" % number) for number in range(2_000, 3_000)]
    assert sum(trace == number for number, trace in zip(range(2_000, 3_000), recalled, strict=True)) > 900
    assert not any(ghost.recall(b"%d" % number) for number in range(2_000, 3_000))
    assert 16 * len(ghost) <= Ghost.BYTES_PER_ENTRY * 1_000


def test_the_ghost_shrinks_with_the_number_of_entries() -> None:
    """When entries grow large, and so few, the ghost gives its memory back."""
    ghost = Ghost()
    for number in range(1, 3_000):
        ghost.remember(b"%d" % number, number)
        ghost.fit(1_000 if number < 2_000 else 10)
    assert 16 * len(ghost) <= 2 * Ghost.BYTES_PER_ENTRY * 10


def test_deadlines_agree_with_a_sorted_list() -> None:
    """Whatever is set, moved and dropped, due is due: never early, a step late at most, each key once."""
    chance = random.Random(6)
    deadlines, oracle, now_s = Deadlines(), dict[bytes, float](), 1_000.0
    for _ in range(5_000):
        key = b"%d" % chance.randrange(200)
        if chance.random() < 0.6:
            oracle[key] = now_s + chance.choice((0.1, 3.0, 1e6)) * chance.random()
            deadlines.set(key, oracle[key])
        elif chance.random() < 0.5:
            deadlines.drop(key)
            oracle.pop(key, None)
        else:
            now_s += chance.choice((0.025, 5.0))
            for due in list(deadlines.due(now_s, 10**6)):
                assert oracle.pop(due) <= now_s
            assert all(due_s > now_s - 0.5 for due_s in oracle.values())
        assert len(deadlines) == len(oracle)
    assert set().union(*deadlines._keys.values()) == set(oracle)


def test_a_replacement_keeps_queue_and_uses() -> None:
    """What is loaded again stands where its predecessor stood, with one use more, also after an end."""
    segment, held = Segment(100), [entry(number) for number in range(200)]
    for one in held:
        segment.insert(one)
    in_main, in_small = segment._main.first(), segment._small.first()
    for old, retired in ((in_main, False), (in_small, True)):
        old.frequency = 1
        if retired:
            segment.retire(old)
        new = entry(int(old.key))
        assert segment.replace(old, new) == []
        assert new.frequency == 2
        queue = segment._main if old is in_main else segment._small
        assert queue._entries[new.place] is new
    assert segment.used == segment.count == 100


def test_leaving_from_the_middle_leaves_nothing_behind() -> None:
    """However often entries come and go behind one that stays, the queue grows with what it holds."""
    segment = Segment(100)
    segment.insert(entry(-1))
    for number in range(5_000):
        passing = entry(number)
        segment.insert(passing)
        segment.remove(passing)
    assert len(segment._main._order) < 100
    assert segment.used == 1


def test_spare_entries_cost_the_others_nothing() -> None:
    """However many come, they take only room that is left, and make way at once: not one hit less."""
    reads = skewed(20_000)
    segment, index, hits = Segment(500), dict[int, Entry](), 0
    spares = iter(range(10**6, 10**7))
    for number in reads:
        held = index.get(number)
        if held is not None:
            hits += 1
            held.frequency = min(held.frequency + 1, 3)
            continue
        index[number] = entry(number)
        for loser in segment.insert(index[number]):
            index.pop(int(loser.key), None)
        for _ in range(3):
            for loser in segment.insert_spare(entry(next(spares))):
                assert int(loser.key) >= 10**6
        assert segment.used <= 500
    assert hits / len(reads) == hit_ratio(reads, 500)


def test_spare_entries_fill_what_room_there_is_the_oldest_leaving_first() -> None:
    """Of ten places three are needed: the last seven spares have the rest."""
    segment = Segment(10)
    for number in range(3):
        segment.insert(entry(number))
    left = [int(loser.key) for number in range(10, 30) for loser in segment.insert_spare(entry(number))]
    assert left == list(range(10, 23))
    assert (len(segment.spare), segment.spare.cost, segment.used) == (7, 7, 10)


def test_a_spare_entry_that_was_used_is_one_like_any_other() -> None:
    """It stays when the others make way, within a bounded number of looks."""
    segment = Segment(100)
    spares = [entry(number) for number in range(100)]
    for one in spares:
        segment.insert_spare(one)
    spares[0].frequency = 2
    assert segment.insert(entry(1000)) == [spares[1]]
    for one in spares:
        one.frequency = 3
    segment.insert(entry(1001))
    assert 0 < sum(one.frequency == 2 for one in spares) <= VISITS


def test_a_spare_entry_too_large_for_the_room_is_not_kept() -> None:
    """Nor does anybody leave in vain; one that ended makes room."""
    segment = Segment(10)
    own = entry(1, 6)
    segment.insert(own)
    assert segment.insert_spare(entry(3, 2)) == []
    large = entry(2, 5)
    assert segment.insert_spare(large) == [large]
    assert (segment.used, len(segment.spare)) == (8, 1)
    segment.retire(own)
    assert segment.insert_spare(large) == [own]
    segment.remove(segment.spare.first())
    segment.remove(large)
    assert (segment.used, segment.count, segment.spare.cost) == (0, 0, 0)
