"""Visibility and order of snapshots, against an oracle that writes out the sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.snapshots import MAX_XID, Order, Snapshot

UNIVERSE = 12


@st.composite
def snapshots(draw: st.DrawFn, base: int = 0) -> Snapshot:
    """Any snapshot over a dozen transactions, shifted by ``base``."""
    xmax = draw(st.integers(1, UNIVERSE))
    xip = sorted(draw(st.sets(st.integers(1, xmax - 1), max_size=6))) if xmax > 1 else []
    xmin = draw(st.integers(1, xip[0] if xip else xmax))
    return Snapshot(base + xmin, base + xmax, tuple(base + xid for xid in xip))


def seen(snapshot: Snapshot, base: int = 0) -> set[int]:
    """The oracle: every transaction of the universe that had ended, by the definition."""
    return {
        base + xid
        for xid in range(1, UNIVERSE + 2)
        if base + xid < snapshot.xmin or (base + xid < snapshot.xmax and base + xid not in snapshot.xip)
    }


@given(st.sampled_from([0, 2**32 - 6, 2**32, 2**63]), st.data())
def test_order_is_that_of_the_sets_of_seen_transactions(base: int, data: st.DataObject) -> None:
    """All four cases agree with set inclusion, below and far above 32 bits."""
    one, other = data.draw(snapshots(base)), data.draw(snapshots(base))
    mine, theirs = seen(one, base), seen(other, base)
    expected = (
        Order.EQUAL
        if mine == theirs
        else Order.BEFORE
        if mine < theirs
        else Order.AFTER
        if mine > theirs
        else Order.CONCURRENT
    )
    assert one.compare(other) is expected
    assert one.within(other) == (mine <= theirs)


@given(snapshots(), st.integers(1, UNIVERSE + 1))
def test_sees_is_set_membership(snapshot: Snapshot, xid: int) -> None:
    """A transaction is seen exactly when the oracle's set holds it."""
    assert snapshot.sees(xid) == (xid in seen(snapshot))


@given(snapshots(2**40))
def test_text_round_trips(snapshot: Snapshot) -> None:
    """What Postgres writes is read back unchanged, 64-bit ids included."""
    assert Snapshot.parse(str(snapshot)) == snapshot


def test_concurrent_snapshots_exist() -> None:
    """Two snapshots that each miss what the other sees are neither before nor after."""
    assert Snapshot(5, 8, (5,)).compare(Snapshot(6, 8, (6,))) is Order.CONCURRENT


@pytest.mark.parametrize(
    "text",
    ["", "5", "5:4:", "5:8:4", "5:8:8", "5:8:6,6", "5:8:7,6", "0:1:", "a:b:", "5:8:6,", f"1:{MAX_XID + 1}:"],
)
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    """Broken text and broken invariants both raise ValueError."""
    with pytest.raises(ValueError, match="not a snapshot"):
        Snapshot.parse(text)
