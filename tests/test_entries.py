"""Admit, apply, serve: the rules that exactness rests on, one by one. All together: test_simulation.py."""

from math import inf

import pytest

from cluster.config import CacheConfig
from cluster.entries import ENTIRE_DATABASE, Admission, Batch, Change, End, Entry, TagLog, Timeline
from cluster.snapshots import Snapshot

CACHE = CacheConfig(name="users", sql="SELECT 1")
INCARNATION = 1


class Kept:
    """The smallest place to keep entries: a dict."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, Entry] = {}
        self.retired: list[Entry] = []
        self.spare: list[Entry] = []
        self.room = True

    def insert(self, entry: Entry) -> bool:
        self.by_key[entry.key] = entry
        return True

    def insert_spare(self, entry: Entry) -> bool:
        self.spare += [entry] * self.room
        return self.room

    def tagged(self, tag: int) -> list[Entry]:
        return [
            entry
            for entry in self.by_key.values()
            if entry.end is None and (tag == ENTIRE_DATABASE or tag in entry.tags)
        ]

    def keeps(self, entry: Entry) -> bool:
        return self.by_key.get(entry.key) is entry

    def retire(self, entry: Entry) -> None:
        assert self.by_key[entry.key] is entry
        self.retired.append(entry)

    def clear(self) -> None:
        self.by_key.clear()


def entry(snapshot: Snapshot, *tags: int, key: bytes = b"users:1", value: bytes = b"v") -> Entry:
    return Entry(key=key, cache=CACHE, value=value, snapshot=snapshot, loaded_s=0.0, tags=tags)


def batch(snapshot: Snapshot, *changes: tuple[int, int], sent_s: float = 1.0) -> Batch:
    return Batch(
        incarnation=INCARNATION,
        snapshot=snapshot,
        sent_s=sent_s,
        changes=tuple(Change(xid, tag) for xid, tag in changes),
    )


@pytest.fixture
def kept() -> Kept:
    """Where the timeline's entries are."""
    return Kept()


@pytest.fixture
def timeline(kept: Kept) -> Timeline:
    """A timeline that follows from snapshot 10:10."""
    timeline = Timeline(kept, log_retention_s=60.0, log_max_changes=100)
    timeline.restart(INCARNATION, Snapshot(10, 10), 0.0)
    return timeline


def test_an_open_entry_follows_the_watermark(timeline: Timeline) -> None:
    """While nothing touches it, an entry is true at every later watermark."""
    loaded = entry(Snapshot(10, 10), 5)
    assert timeline.admit(loaded, INCARNATION) is Admission.OPEN
    timeline.apply(batch(Snapshot(12, 12), (11, 6)))
    assert loaded.end is None
    assert timeline.as_of(loaded) == (Snapshot(12, 12), 1.0)
    assert timeline.holds(loaded, Snapshot(11, 11))


def test_a_change_ends_the_entries_on_its_tag(timeline: Timeline, kept: Kept) -> None:
    """An ended entry stays true where the change is not seen, and only there."""
    loaded = entry(Snapshot(10, 10), 5)
    timeline.admit(loaded, INCARNATION)
    assert timeline.apply(batch(Snapshot(13, 13), (11, 5), (12, 5))) == 1
    assert loaded.end is not None
    assert loaded.end.xids == (11, 12)
    assert loaded.end.as_of == Snapshot(10, 10)
    assert loaded.until_s == -inf
    assert timeline.as_of(loaded) == (Snapshot(10, 10), 0.0)
    assert kept.retired == [loaded]
    assert timeline.holds(loaded, Snapshot(11, 11))
    assert not timeline.holds(loaded, Snapshot(12, 12))
    assert not timeline.holds(loaded, Snapshot(11, 13, (11,)))
    assert not timeline.holds(loaded, Snapshot(10, 20, (11, 12))), "beyond the watermark nothing is known"


def test_a_change_the_entry_has_already_seen_does_not_end_it(timeline: Timeline) -> None:
    """A load newer than the watermark survives the batch it was ahead of."""
    ahead = entry(Snapshot(12, 12), 5)
    assert timeline.admit(ahead, INCARNATION) is Admission.OPEN
    assert timeline.as_of(ahead) == (Snapshot(12, 12), 0.0)
    timeline.apply(batch(Snapshot(12, 12), (11, 5)))
    assert ahead.end is None


def test_a_change_that_a_poll_found_late_was_seen_by_a_load_before(timeline: Timeline) -> None:
    """It is logged beyond the load's snapshot, and no reason to close it."""
    ahead = entry(Snapshot(12, 12), 5)
    timeline.apply(batch(Snapshot(13, 13), (11, 5), (12, 6)))
    assert timeline.admit(ahead, INCARNATION) is Admission.OPEN


def test_admit_looks_back_for_changes_that_overtook_the_load(timeline: Timeline) -> None:
    """A slow load whose row changed meanwhile answers once but is never kept as open."""
    timeline.apply(batch(Snapshot(12, 12), (11, 5)))
    slow = entry(Snapshot(11, 11), 5)
    assert timeline.admit(slow, INCARNATION) is Admission.CLOSED
    assert timeline.as_of(slow)[0] == Snapshot(11, 11)
    assert not timeline.holds(slow, Snapshot(12, 12))


def test_admit_knows_transactions_that_commit_out_of_order(timeline: Timeline) -> None:
    """A transaction below the load's xmax but still running in its snapshot ends it when it commits."""
    timeline.apply(batch(Snapshot(11, 14, (11,)), (13, 5)))
    timeline.apply(batch(Snapshot(14, 14), (11, 5)))
    slow = entry(Snapshot(11, 14, (11,)), 5)
    assert timeline.admit(slow, INCARNATION) is Admission.CLOSED
    assert slow.end is not None
    assert slow.end.xids == (11,)


def test_admit_refuses_what_the_log_no_longer_covers(timeline: Timeline) -> None:
    """Once the log forgot, nothing is known about what followed an old snapshot."""
    for xid in range(10, 120):
        timeline.apply(batch(Snapshot(xid + 1, xid + 1), (xid, xid)))
    assert timeline.admit(entry(Snapshot(11, 11), 5), INCARNATION) is Admission.REFUSED
    assert timeline.admit(entry(Snapshot(119, 119), 5), INCARNATION) is Admission.OPEN


def test_the_log_forgets_by_age_too() -> None:
    """Batches older than the retention go, and the low water rises to where they ended."""
    log = TagLog(Snapshot(1, 1), 0.0, retention_s=10.0, max_changes=100)
    log.append(batch(Snapshot(3, 3), (2, 5), sent_s=0.0))
    log.append(batch(Snapshot(4, 4), (3, 5), sent_s=5.0))
    assert log.low_water == Snapshot(1, 1)
    log.append(batch(Snapshot(5, 5), sent_s=11.0))
    assert log.low_water == Snapshot(3, 3)
    assert list(log.unseen([5], Snapshot(1, 1))) == [3]
    assert len(log) == 1


def test_another_incarnation_is_never_admitted(timeline: Timeline, kept: Kept) -> None:
    """The same xid means another transaction there."""
    assert timeline.admit(entry(Snapshot(11, 11), 5), INCARNATION + 1) is Admission.REFUSED
    assert not kept.by_key


def test_a_restart_voids_everything(timeline: Timeline, kept: Kept) -> None:
    """After a gap nothing old is open, and loads from before it are refused."""
    timeline.admit(entry(Snapshot(10, 10), 5), INCARNATION)
    timeline.restart(INCARNATION, Snapshot(20, 20), 2.0)
    assert (timeline.watermark, timeline.watermark_s) == (Snapshot(20, 20), 2.0)
    assert not kept.by_key
    assert timeline.admit(entry(Snapshot(15, 15), 5), INCARNATION) is Admission.REFUSED


def test_a_change_of_the_entire_database_ends_every_entry(timeline: Timeline, kept: Kept) -> None:
    """Whatever an entry's tags are, it depends on the database."""
    untagged, tagged = entry(Snapshot(10, 10), key=b"a:1"), entry(Snapshot(10, 10), 5, key=b"b:1")
    timeline.admit(untagged, INCARNATION)
    timeline.admit(tagged, INCARNATION)
    assert timeline.apply(batch(Snapshot(12, 12), (11, ENTIRE_DATABASE))) == 2
    late = entry(Snapshot(10, 10), key=b"c:1")
    assert timeline.admit(late, INCARNATION) is Admission.CLOSED


def test_the_watermark_never_goes_back(timeline: Timeline) -> None:
    """A batch from before the watermark, or from another incarnation, is an error (I2)."""
    timeline.apply(batch(Snapshot(12, 12)))
    with pytest.raises(ValueError, match="went back"):
        timeline.apply(batch(Snapshot(11, 11)))
    with pytest.raises(ValueError, match="belong"):
        timeline.apply(Batch(incarnation=2, snapshot=Snapshot(13, 13), sent_s=2.0, changes=()))


def test_a_suspended_timeline_vouches_for_nothing_new(timeline: Timeline) -> None:
    """After an apply error an open entry is true at its own snapshot, no further."""
    loaded = entry(Snapshot(10, 10), 5)
    timeline.admit(loaded, INCARNATION)
    timeline.suspend()
    assert (timeline.watermark, timeline.watermark_s) == (None, -inf)
    assert timeline.as_of(loaded) == (Snapshot(10, 10), 0.0)
    assert timeline.logged_s(Snapshot(12, 12)) == -inf
    assert not timeline.holds(loaded, Snapshot(12, 12))
    assert not timeline.holds(loaded, Snapshot(9, 9))
    loaded.ended(End((11,), Snapshot(10, 10), 0.0))
    assert not timeline.holds(loaded, Snapshot(10, 10))
    assert timeline.admit(entry(Snapshot(11, 11), 5), INCARNATION) is Admission.REFUSED
    with pytest.raises(ValueError, match="belong"):
        timeline.apply(batch(Snapshot(12, 12)))


def test_a_timeline_that_has_not_begun_vouches_for_nothing(kept: Kept) -> None:
    """No snapshot is current, and nothing is kept."""
    timeline = Timeline(kept, log_retention_s=60.0, log_max_changes=100)
    assert (timeline.watermark, timeline.watermark_s, timeline.incarnation) == (None, -inf, None)
    assert timeline.admit(entry(Snapshot(11, 11), 5), INCARNATION) is Admission.REFUSED


def test_a_batch_that_the_log_cannot_hold_leaves_none_behind(timeline: Timeline) -> None:
    """The log begins after it: what was loaded before is refused."""
    timeline.apply(batch(Snapshot(12, 12), *[(11, tag) for tag in range(101)]))
    assert timeline.admit(entry(Snapshot(11, 11), 500), INCARNATION) is Admission.REFUSED
    assert timeline.admit(entry(Snapshot(12, 12), 500), INCARNATION) is Admission.OPEN


def test_a_snapshot_is_as_old_as_the_newest_poll_that_it_includes() -> None:
    """Or as the end of what was forgotten; before that nobody knows."""
    log = TagLog(Snapshot(1, 1), 0.0, retention_s=10.0, max_changes=100)
    for at, sent_s in ((3, 3.0), (5, 5.0), (7, 14.0)):
        log.append(batch(Snapshot(at, at), sent_s=sent_s))
    assert [log.current_s(Snapshot(at, at)) for at in (2, 3, 4, 5, 6, 7)] == [-inf, 3.0, 3.0, 5.0, 5.0, 14.0]


def test_an_entry_that_reaches_back_is_as_old_there_as_the_snapshot(timeline: Timeline) -> None:
    """Not as young as its load."""
    timeline.apply(batch(Snapshot(12, 12), sent_s=1.0))
    timeline.apply(batch(Snapshot(14, 14), sent_s=2.0))
    late = entry(Snapshot(14, 14), 5)
    late.loaded_s = 3.0
    timeline.admit(late, INCARNATION)
    assert timeline.holds(late, Snapshot(12, 12))
    assert timeline.current_s(late, Snapshot(12, 12)) == 1.0
    assert timeline.current_s(late, Snapshot(14, 14)) == 3.0


def test_a_spare_entry_is_kept_as_one(timeline: Timeline, kept: Kept) -> None:
    """Only if there is room for it; where there is none, it is told of nothing."""
    kept.room = False
    assert timeline.admit(entry(Snapshot(10, 10), 5), INCARNATION, spare=True) is Admission.TOO_LARGE
    kept.room = True
    assert timeline.admit(entry(Snapshot(10, 10), 5), INCARNATION, spare=True) is Admission.OPEN
    assert len(kept.spare) == 1


def test_an_entry_reaches_back_over_a_quiet_stretch(timeline: Timeline) -> None:
    """If nothing touched its rows since an earlier snapshot, the entry was true there already."""
    timeline.apply(batch(Snapshot(12, 12), (11, 5)))
    timeline.apply(batch(Snapshot(14, 14), (13, 6)))
    loaded = entry(Snapshot(14, 14), 5)
    timeline.admit(loaded, INCARNATION)
    assert timeline.holds(loaded, Snapshot(12, 12))
    assert not timeline.holds(loaded, Snapshot(11, 11))
    assert not timeline.holds(loaded, Snapshot(9, 9))
    ahead = entry(Snapshot(16, 16), 5, key=b"users:2")
    timeline.admit(ahead, INCARNATION)
    assert not timeline.holds(ahead, Snapshot(12, 12))


def test_the_age_of_an_exact_answer_is_known_after_the_log_has_forgotten(timeline: Timeline) -> None:
    """However old the snapshot, there is a time at which it was surely current."""
    loaded = entry(Snapshot(10, 10), 5)
    timeline.admit(loaded, INCARNATION)
    for xid in range(10, 300):
        timeline.apply(batch(Snapshot(xid + 1, xid + 1), (xid, 6), sent_s=float(xid)))
    assert timeline.holds(loaded, Snapshot(12, 12))
    assert timeline.current_s(loaded, Snapshot(12, 12)) == loaded.loaded_s
    late = entry(Snapshot(300, 300), 7, key=b"users:2")
    timeline.admit(late, INCARNATION)
    oldest = next(n for n in range(10, 300) if timeline.holds(late, Snapshot(n, n)))
    assert timeline.current_s(late, Snapshot(oldest, oldest)) > -inf


def test_an_entry_that_is_not_kept_claims_its_own_snapshot_only(timeline: Timeline, kept: Kept) -> None:
    """Refused, evicted or cleared, an entry is told of no changes, so it must not follow the watermark."""
    evicted, refused = entry(Snapshot(10, 10), 5), entry(Snapshot(10, 10), 5)
    timeline.admit(evicted, INCARNATION)
    del kept.by_key[evicted.key]
    timeline.apply(batch(Snapshot(12, 12), (11, 5)))
    assert timeline.as_of(evicted) == (Snapshot(10, 10), 0.0)
    assert not timeline.holds(evicted, Snapshot(12, 12))
    timeline.restart(INCARNATION, Snapshot(12, 12), 2.0)
    assert timeline.admit(refused, INCARNATION) is Admission.REFUSED
    assert timeline.as_of(refused) == (Snapshot(10, 10), 0.0)
    assert not timeline.holds(refused, Snapshot(12, 12))


def test_values_come_back_without_their_framing() -> None:
    """The stored frame is RESP; the value is what was put in, line ends and all."""
    assert entry(Snapshot(1, 1), value=b"a\r\nb").frame == b"$4\r\na\r\nb\r\n"
    assert entry(Snapshot(1, 1), value=b"a\r\nb").value == b"a\r\nb"
    assert entry(Snapshot(1, 1), value=b"").value == b""
