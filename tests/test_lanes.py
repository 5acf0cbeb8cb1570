"""Whose load is next: caches and tenants take turns, and nobody fills the queue or the workers alone."""

import pytest

from cluster.lanes import Lanes
from snapring.errors import Overloaded


def fed(lanes: Lanes[str], *waiting: str) -> Lanes[str]:
    """``lanes`` with loads written as tenant/cache."""
    for text in waiting:
        tenant, _, cache = text.partition("/")
        lanes.add(lanes.lane(cache, tenant), text)
    return lanes


def halves(workers: int) -> Lanes[str]:
    """Lanes in which a tenant fills half of the queue at most."""
    return Lanes(workers, lambda _, places: places // 2)


def test_a_flood_of_one_tenant_leaves_places_in_the_queue() -> None:
    """Its own loads are refused while others' are taken; one that goes makes room."""
    lanes = fed(halves(4), *["a/users"] * 5)
    with pytest.raises(Overloaded, match="5 loads of the tenant are waiting"):
        lanes.check(lanes.lane("orders", "a"), 10, 0.1)
    lanes.check(lanes.lane("users", "b"), 10, 0.1)
    lanes.take(1)
    lanes.check(lanes.lane("orders", "a"), 10, 0.1)


def test_who_comes_last_waits_for_one_batch_of_each_other() -> None:
    """Tenants take turns within a cache."""
    lanes = fed(halves(4), *["a/users"] * 6, "b/users")
    turns = [lanes.take(2) for _ in range(4)]
    assert [turn[1] for turn in turns if turn] == [
        ["a/users"] * 2,
        ["b/users"],
        ["a/users"] * 2,
        ["a/users"] * 2,
    ]
    assert lanes.take(2) is None
    assert lanes.queued == 0


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
def test_a_worker_is_kept_for_a_tenant_that_has_none(workers: int) -> None:
    """However many caches the other's slow loads are of."""
    lanes = halves(workers)
    for cache in map(str, range(workers)):
        if lanes.may_go(lanes.lane(cache, "a")):
            lanes.began(lanes.lane(cache, "a"))
    assert lanes._under_way.total() == workers - 1
    assert not lanes.may_go(lanes.lane("another", "a"))
    assert lanes.may_go(lanes.lane("0", "b"))


def test_without_tenants_told_apart_all_is_one() -> None:
    """One lane a cache, the whole queue for whoever comes, and the last worker for a cache that has none."""
    lanes: Lanes[str] = fed(Lanes(2), "a/users", "b/users")
    lanes.check(lanes.lane("users", "a"), 3, 0.1)
    assert lanes.take(8) == (("users", ""), ["a/users", "b/users"])
    lanes.began(lanes.lane("users", "a"))
    assert not lanes.may_go(lanes.lane("users", "b"))
    assert lanes.may_go(lanes.lane("orders", "a"))


def test_what_is_cleared_no_longer_counts() -> None:
    """After a failure of the database everybody begins anew."""
    lanes = fed(halves(4), *["a/users"] * 5)
    assert list(lanes.clear()) == [["a/users"] * 5]
    lanes.check(lanes.lane("users", "a"), 10, 0.1)
    assert lanes.take(1) is None
