"""Tenants share one memory: who loads most takes what the others leave, and nothing of their shares."""

import random

import pytest

from cluster.memory.commons import Commons, tenant_of
from cluster.store import Left, Store, cost_of
from test_store import CACHES, audit, entry

WEIGHTS = {"big": 3}


def weigh(tenant: str) -> int:
    """One for everybody but ``big``."""
    return WEIGHTS.get(tenant, 1)


def fill(store: Store, tenant: str, count: int, size: int = 100) -> None:
    """Insert ``count`` entries of ``tenant``."""
    prefix = "" if tenant == "default" else f"{tenant}/"
    for number in range(count):
        store.insert(entry(f"{prefix}users:{number}", size))


def used(store: Store, tenant: str) -> int:
    """What the tenant's entries cost."""
    return store.tenant_usage().get(tenant, (0, 0))[1]


def test_a_tenant_alone_has_all_of_the_memory() -> None:
    """Nothing is set aside for who is not there."""
    store = Store(100_000, weigh=weigh)
    fill(store, "acme", 1_000)
    assert used(store, "acme") > 99_000


def test_a_flood_leaves_the_others_their_share() -> None:
    """Whoever was there first or loads most, each keeps what its weight is worth, the default tenant too."""
    store = Store(100_000, weigh=weigh)
    fill(store, "big", 1_000)
    fill(store, "default", 1_000)
    edge = cost_of(entry("default/users:1000", 100))
    fill(store, "big", 5_000)
    assert 25_000 - edge <= used(store, "default") <= 25_000
    assert 75_000 - edge <= used(store, "big")
    fill(store, "small", 10)
    kept = used(store, "small")
    for tenant in ("big", "default"):
        fill(store, tenant, 5_000)
    assert used(store, "small") == kept


def test_what_one_tenant_reads_does_not_change_what_another_keeps() -> None:
    """At its share, a tenant evicts its own cold end: the other's entries are the very same afterwards."""
    store = Store(100_000, weigh=weigh)
    fill(store, "a", 1_000)
    fill(store, "b", 1_000)
    before = {key for key in store if key.startswith(b"b/")}
    fill(store, "a", 20_000)
    assert {key for key in store if key.startswith(b"b/")} == before


def test_an_entry_beyond_share_and_free_room_is_refused() -> None:
    """It would displace what is others': it is answered and not kept."""
    store = Store(100_000, weigh=weigh)
    assert store.insert(entry("a/users:0", 90_000))
    assert not store.insert(entry("b/users:0", 60_000))
    assert store.insert(entry("b/users:0", 40_000))
    assert used(store, "a") == 0


@pytest.mark.parametrize("seed", range(4))
def test_shares_hold_after_every_operation(seed: int) -> None:
    """Random inserts of many tenants: indexes agree, the budget holds, and nobody is pushed below his share."""
    chance = random.Random(seed)
    store = Store(60_000, {"own": 20_000}, weigh=weigh)
    tenants = ("default", "a", "b", "big", "c")
    for _ in range(1_200):
        tenant = chance.choice(tenants)
        prefix = "" if tenant == "default" else f"{tenant}/"
        cache = chance.choice(tuple(CACHES))
        key = f"{prefix}{cache}:{chance.randrange(60)}"
        act = chance.random()
        if act < 0.85:
            before = _shares(store)
            insert = store.insert if act < 0.7 else store.insert_spare
            insert(entry(key, chance.choice((10, 100, 1_000, 9_000)), cache=cache))
            _check(store, before, tenant)
        elif act < 0.95 or (held := store.get(key.encode())) is None:
            store.remove(key.encode(), Left.DELETED)
        else:
            held.frequency += 1
        audit(store, {"own": 20_000})
    assert store.removed[Left.EVICTED] > 100


def _shares(store: Store) -> dict[str, int]:
    shared = store._shared
    assert isinstance(shared, Commons)
    return {tenant: size for tenant, (_, size) in shared.usage().items()}


def _check(store: Store, before: dict[str, int], acting: str) -> None:
    """Who lost something to ``acting`` still has his share, but for the entry at its edge."""
    shared = store._shared
    assert isinstance(shared, Commons)
    after = _shares(store)
    for tenant, size in before.items():
        if tenant != acting and after.get(tenant, 0) < size:
            share = 40_000 * weigh(tenant) // sum(map(weigh, {*before, acting}))
            assert after.get(tenant, 0) > share - cost_of(entry("big/users:10", 9_000))


def test_whose_a_key_is_is_read_off_its_canonical_text() -> None:
    """No slash, no tenant: an argument's own is written as %2F."""
    assert [tenant_of(key) for key in (b"users:1", b"acme/users:1", b"users:a%2Fb")] == [
        "default",
        "acme",
        "default",
    ]
