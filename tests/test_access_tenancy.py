"""Whatever the text of a key says, it is a key of the credential's tenant or it is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.access.gate import Gate
from cluster.access.identity import Role
from cluster.access.keyring import read_keyring
from cluster.access.needs import COMMANDS, RPCS
from cluster.access.quotas import Allowance, part
from cluster.access.tenancy import Reach, closed_to
from cluster.config import CacheConfig, TenantConfig
from keys import holder, keys_text
from snapring.errors import KeyInvalid, Overloaded, PermissionDenied, Unauthenticated
from snapring.keys import parse

TENANTS = ("default", "acme", "acme-2")
PIECES = st.sampled_from(
    ["acme", "default", "other", "acme-2", "users", "/", ":", "{", "}", "@", "}@", "1", "%2F", " "]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=12)


@given(text=TEXTS, tenant=st.sampled_from(TENANTS))
def test_no_text_reaches_another_tenant(text: str, tenant: str) -> None:
    """What comes through is a key of the tenant, the same one as before if it named its tenant, or none at all."""
    raw = text.encode()
    try:
        key, token = Reach(tenant).key(raw)
    except (PermissionDenied, KeyInvalid):
        return
    assert key.tenant == tenant
    meant, meant_token = parse(raw)
    assert (key.cache, key.args, token) == (meant.cache, meant.args, meant_token)
    assert meant.tenant == tenant or b"/" not in raw.partition(b"}@")[0]


@given(text=TEXTS, tenant=st.sampled_from(TENANTS))
def test_the_hit_path_finds_only_what_a_parsed_key_finds(text: str, tenant: str) -> None:
    """An entry under any tenant's key is found by nobody else, whatever he writes."""
    entries = {
        key: key
        for owner in (b"", b"acme/", b"acme-2/", b"other/")
        for key in (owner + b"users:1", owner + text.encode())
    }
    reach = Reach(tenant)
    found = reach.finder(entries.get)(text.encode())
    if found is not None and _is_canonical(found):
        assert parse(found)[0].tenant == tenant
        assert reach.key(text.encode())[0].canonical == found


def _is_canonical(text: bytes) -> bool:
    try:
        key, token = parse(text)
    except KeyInvalid:
        return False
    return token is None and key.canonical == text


def test_ones_own_tenant_may_be_named_and_no_other() -> None:
    """Also by the default tenant's credential, and in a key with a token."""
    acme, default = Reach("acme"), Reach("default")
    assert acme.text(b"users:1") == acme.text(b"acme/users:1") == b"acme/users:1"
    assert acme.text(b"{users:1}@TOKEN") == b"{acme/users:1}@TOKEN"
    assert default.text(b"default/users:1") == default.text(b"users:1") == b"users:1"
    others = ((acme, b"zeta/users:1"), (acme, b"default/users:1"), (default, b"acme/users:1"))
    behind = (
        (default, b"default/acme/users:1"),
        (default, b"default/default/users:1"),
        (acme, b"acme/zeta/users:1"),
    )
    for reach, other in others + behind:
        for text in (other, b"{" + other + b"}@TOKEN"):
            with pytest.raises(PermissionDenied):
                reach.text(text)
        with pytest.raises(PermissionDenied):
            reach.prefix(other)


def test_a_text_that_is_no_key_is_left_to_the_parser() -> None:
    """Braces that never close, and a key that only ends in them."""
    acme = Reach("acme")
    assert acme.text(b"{users:1") == b"{acme/users:1"
    assert acme.text(b"{acme/users:1}") == b"{acme/users:1}"
    assert acme.text(b"{}@T") == b"{acme/}@T"


@given(tenant=st.sampled_from(TENANTS), other=st.sampled_from(TENANTS))
def test_only_ones_own_keys_are_shown_and_without_the_tenant(tenant: str, other: str) -> None:
    """Whoever else has a key of the same name, and whatever cache of his own is closed to him."""
    reach = Reach(tenant, ["plans"])
    prefix = b"" if other == "default" else f"{other}/".encode()
    own = tenant == other
    assert reach.own(prefix + b"users:1") == (b"users:1" if own else None)
    assert reach.own(prefix + b"users") == (b"users" if own else None)
    assert reach.own(prefix + b"plans:1") is reach.own(prefix + b"plans") is None


def test_a_prefix_is_of_ones_own_keys() -> None:
    """Also an empty one, and one that names the tenant."""
    acme, default = Reach("acme"), Reach("default")
    assert [acme.prefix(text) for text in (b"", b"us", b"acme/us")] == [b"acme/", b"acme/us", b"acme/us"]
    assert [default.prefix(text) for text in (b"", b"us", b"default/us")] == [b"", b"us", b"us"]
    for text in (b"/", b"zeta/", b"zeta/us"):
        with pytest.raises(PermissionDenied):
            acme.prefix(text)


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("form", ["%s", "{%s}@TOKEN"])
def test_what_may_have_been_said_becomes_the_same_text(tenant: str, form: str) -> None:
    """With the tenant's name and without it, in braces or not; there is no third."""
    reach = Reach(tenant)
    bare, named = (form % text for text in ("users:1", f"{tenant}/users:1"))
    for said in (bare, named):
        text = reach.text(said.encode())
        assert reach.said(text) == (bare.encode(), named.encode())
        assert {reach.text(each) for each in reach.said(text)} == {text}


def test_a_cache_may_be_closed_to_a_tenant() -> None:
    """On the hit path too, and however the key is written."""
    readers = {"users": None, "plans": ("zeta",)}
    assert closed_to("acme", readers) == ["plans"]
    assert closed_to("zeta", readers) == []
    reach = Reach("acme", ["plans"])
    assert reach.text(b"users:1") == b"acme/users:1"
    for text in (b"plans:1", b"acme/plans:1", b"plans", b"{plans:1}@T"):
        with pytest.raises(PermissionDenied):
            reach.text(text)
    found = reach.finder({b"acme/plans:1": 1, b"acme/users:1": 2}.get)
    assert [found(text) for text in (b"plans:1", b"users:1", b"acme/plans:1")] == [None, 2, None]


def test_roles_hold_one_another() -> None:
    """Each may what those before it may; a command's need names the least. Who traces one needs what it needs."""
    assert [command for command, need in COMMANDS.items() if need.role is None] == [
        "AUTH", "HELLO", "QUIT", "RESET", "SNAP.TRACE",
    ]  # fmt: skip
    assert RPCS["Write"] > RPCS["Get"]
    writer = _gate().authenticate(WRITER.key.encode())
    assert writer is not None
    writer.allow(Role.READ)
    writer.allow(Role.WRITE)
    with pytest.raises(PermissionDenied, match="may write, this needs admin"):
        writer.allow(Role.ADMIN)


def test_a_method_is_admitted_by_its_line_in_the_table() -> None:
    """One call where each request shows its key; a method without a line is open to nobody."""
    gate = _gate(acme=TenantConfig(rate=2, burst=2))
    header = f"Bearer {WRITER.key}"
    assert gate.admit("Write", header).identity.tenant == "acme"
    with pytest.raises(PermissionDenied):
        gate.admit("Unheard", header)
    with pytest.raises(Unauthenticated):
        gate.admit("Get", None)
    gate.admit("GetMany", header)
    with pytest.raises(Overloaded):
        gate.admit("GetMany", header, requests=2)


WRITER = holder("writer", "acme", "write")


def _gate(**tenants: TenantConfig) -> Gate:
    return Gate(
        read_keyring(keys_text([WRITER])),
        quota=lambda tenant: tenants.get(tenant, TenantConfig()),
        caches={"users": CacheConfig(name="users")},
        clock=lambda: 0.0,
        unix_time=lambda: 0.0,
    )


def test_every_connection_of_a_tenant_draws_on_one_allowance() -> None:
    """A second connection or credential brings no second quota."""
    gate = _gate(acme=TenantConfig(rate=2, burst=2))
    first, second = (gate.authenticate(WRITER.key.encode()) for _ in range(2))
    assert first is not None
    assert second is not None
    first.allow(Role.READ)
    second.allow(Role.READ)
    with pytest.raises(Overloaded, match=r"retry after 0\.5 s"):
        first.allow(Role.READ)
    assert gate.describe()["requests_refused"] == 1


def test_a_rate_fills_up_with_time_and_not_beyond_the_burst() -> None:
    """Ten a second, at most five at once; more than that at once is paid back."""
    now_s = [0.0]
    allowance = Allowance(TenantConfig(rate=10, burst=5), lambda: now_s[0])
    allowance.take(5)
    with pytest.raises(Overloaded):
        allowance.take()
    now_s[0] = 100.0
    allowance.take(20)
    now_s[0] = 101.9
    with pytest.raises(Overloaded, match=r"retry after 0\.1 s"):
        allowance.take(5)
    now_s[0] = 102.1
    allowance.take(5)


def test_what_waits_is_bounded_and_frees_its_place() -> None:
    """However it ends."""
    gate = _gate(acme=TenantConfig(in_flight=1))
    caller = gate.authenticate(WRITER.key.encode())
    assert caller is not None
    with caller.waiting(), pytest.raises(Overloaded), caller.waiting():
        pass
    with pytest.raises(KeyError), caller.waiting():
        raise KeyError
    with caller.waiting():
        assert caller.allowance.waiting == 1


def test_without_bounds_the_hit_path_asks_nothing() -> None:
    """Credit is infinite where no rate is set."""
    assert not Allowance(TenantConfig(), lambda: 0.0).metered
    assert part(TenantConfig(queue_share=0.001), 10) == 1
