"""API keys: who holds one is known by its hash, and nothing else of it is kept or shown."""

import re
from datetime import UTC, datetime

import pytest

from cluster.access.gate import Gate
from cluster.access.identity import Identity, Role
from cluster.access.keyring import Credential, Keyring, read_keyring
from cluster.access.secret import digest, mint, name_of, show_digest
from cluster.config import TenantConfig
from keys import Holder, holder, keys_text
from snapring.errors import ConfigInvalid, Unauthenticated

NOW_S = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
BILLING = holder("billing", "acme", "write")
AUDIT = holder("audit", "zeta")


def ring(*holders: Holder, expires: str = "") -> Keyring:
    """The keyring that the file of ``holders`` gives."""
    return read_keyring(keys_text(holders, expires))


def gate(*holders: Holder) -> Gate:
    """A gate for them, at `NOW_S`."""
    return Gate(
        ring(*holders),
        quota=lambda _: TenantConfig(),
        caches={},
        clock=lambda: 0.0,
        unix_time=lambda: NOW_S,
    )


def test_a_key_says_what_and_whose_it_is() -> None:
    """256 random bits behind a prefix that people and secret scanners know."""
    key = mint("billing", lambda count: b"\xff" * count)
    assert key == "snapring_billing_" + "_" * 42 + "8"
    assert name_of(key.encode()) == "billing"
    assert name_of(mint("a_b-c", bytes).encode()) == "a_b-c"
    assert [name_of(text) for text in (b"", b"billing", key.encode() + b"!", b"x" * 10_000)] == [None] * 4
    with pytest.raises(ValueError, match="a letter, then"):
        mint("no spaces", bytes)


def test_the_holder_of_a_key_is_known_by_it() -> None:
    """With or without the name, which must then be the right one."""
    keyring = ring(BILLING, AUDIT)
    proof = keyring.prove(BILLING.key.encode(), NOW_S)
    assert proof is not None
    assert proof.identity == Identity(name="billing", tenant="acme", role=Role.WRITE)
    assert keyring.prove(BILLING.key.encode(), NOW_S, "billing") == proof
    assert keyring.prove(BILLING.key.encode(), NOW_S, "audit") is None


def test_any_other_key_is_nobodys() -> None:
    """A key with one bit turned, one of an unknown name, and the hash itself in place of the key."""
    keyring = ring(BILLING)
    turned = BILLING.key[:-2] + ("A" if BILLING.key[-2] != "A" else "B") + BILLING.key[-1]
    for wrong in (turned, AUDIT.key, BILLING.hash, digest(BILLING.key.encode()).hex(), "", "billing"):
        assert keyring.prove(wrong.encode(), NOW_S) is None


def test_two_keys_are_valid_at_once() -> None:
    """A key is replaced without a moment without one: both hashes, then the new one alone."""
    new = holder("billing", "acme", "write")
    both, after = ring(BILLING, new), ring(new)
    proofs = [both.prove(each.key.encode(), NOW_S) for each in (BILLING, new)]
    assert None not in proofs
    old_proof, new_proof = proofs
    assert old_proof is not None
    assert new_proof is not None
    assert not after.upholds(old_proof, NOW_S)
    assert after.upholds(new_proof, NOW_S)


def test_a_changed_role_or_tenant_voids_what_was_proved() -> None:
    """Who is connected must come in again to get less, or more."""
    proof = ring(BILLING).prove(BILLING.key.encode(), NOW_S)
    assert proof is not None
    for role, tenant in (("read", "acme"), ("write", "zeta")):
        changed = Holder(name="billing", tenant=tenant, role=role, key=BILLING.key)
        assert not ring(changed).upholds(proof, NOW_S)


def test_a_key_ends_when_the_file_says() -> None:
    """From that second on it lets nobody in, and nobody stay."""
    keyring = ring(BILLING, expires="2026-11-21T01:00:00+01:00")
    proof = keyring.prove(BILLING.key.encode(), NOW_S - 1)
    assert proof is not None
    assert keyring.upholds(proof, NOW_S - 1)
    assert not keyring.upholds(proof, NOW_S)
    assert keyring.prove(BILLING.key.encode(), NOW_S) is None


@pytest.mark.parametrize(
    ("expires", "ended"), [("0001-01-01T00:00:00+23:59", True), ("9999-12-31T23:59:59-23:59", False)]
)
def test_any_time_that_toml_can_write_may_be_the_end(expires: str, ended: bool) -> None:
    """Also one that is in another year elsewhere, which Python cannot name."""
    assert (ring(BILLING, expires=expires).prove(BILLING.key.encode(), NOW_S) is None) is ended


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("billing = ", "the keys file is not TOML"),
        ("billing = 1", "billing: expected tenant, role, hashes and perhaps expires"),
        ('"a b" = {}', "the 1. name: a name is a letter"),
        ('billing = { tenant = "a/b" }', "billing: tenant is a letter"),
        ('billing = { tenant = "acme", role = "root" }', "billing: role is one of read, write, admin"),
        ('billing = { tenant = "acme", role = "read", hashes = [] }', "billing: hashes is a list of 1 to 2"),
        ('billing = { tenant = "acme", role = "read", hash = "x" }', "billing: expected tenant, role"),
        (keys_text([BILLING], "2026-11-21"), "billing: expires is a time with its offset"),
        (keys_text([BILLING] * 3), "billing: hashes is a list of 1 to 2"),
    ],
)
def test_a_broken_file_says_what_is_wrong(line: str, problem: str) -> None:
    """Every problem, each with its name."""
    with pytest.raises(ConfigInvalid, match=re.escape(problem)):
        read_keyring(line)


def test_nothing_shows_a_key_or_its_hash() -> None:
    """Not the errors, where a key stands in a hash's place or breaks the file, and not what is printed of objects."""
    keyring, known = ring(BILLING), gate(BILLING)
    caller = known.authenticate(BILLING.key.encode())
    shown = [repr(keyring), repr(known), repr(caller), str(known.describe())]
    shown.append(repr(keyring.prove(BILLING.key.encode(), NOW_S)))
    shown.append(repr(Credential(identity=Identity(name="a", tenant="b", role=Role.READ), hashes=(b"hash",))))
    for text in (
        f'billing = {{ tenant = "acme", role = "read", hashes = ["{BILLING.key}"] }}',
        f"billing = {BILLING.key}",
        f'"{BILLING.key}" = 1 = 2',
        f'billing = {{ tenant = "{BILLING.key}" }}',
    ):
        with pytest.raises(ConfigInvalid) as refused:
            read_keyring(text)
        assert refused.value.__cause__ is None
        shown.append(str(refused.value))
    with pytest.raises(Unauthenticated) as refused_caller:
        known.bearer(f"Bearer {AUDIT.key}")
    shown.append(str(refused_caller.value))
    secret = BILLING.key.removeprefix("snapring_billing_")
    for text in shown:
        assert secret not in text
        assert AUDIT.key not in text
        assert digest(BILLING.key.encode()).hex() not in text
        assert repr(digest(BILLING.key.encode())) not in text


def test_a_bearer_is_known_by_the_header() -> None:
    """As HTTP and gRPC carry it, the scheme in any case; without one or with another nobody is."""
    known = gate(BILLING)
    assert known.bearer(f"bearer  {BILLING.key}").identity.tenant == "acme"
    for header in (None, "", "Bearer", BILLING.key, f"Basic {BILLING.key}", "Bearer " + "x" * 100_000):
        with pytest.raises(Unauthenticated):
            known.bearer(header)
    assert (known.accepted, known.rejected) == (1, 1)


def test_the_line_that_is_printed_lets_the_key_in(capsys: pytest.CaptureFixture[str]) -> None:
    """What `snapring key new` shows goes into the file as it is."""
    from cluster.cli import main  # noqa: PLC0415 -- the program, as people call it

    assert main(["key", "new", "--name", "billing", "--tenant", "acme", "--role", "admin"]) == 0
    shown, _, line = capsys.readouterr().out.strip().split("\n")
    key = shown.rpartition(" ")[2]
    proof = read_keyring(line).prove(key.encode(), NOW_S)
    assert proof is not None
    assert proof.identity == Identity(name="billing", tenant="acme", role=Role.ADMIN)
    assert show_digest(digest(key.encode())) in line
    assert main(["key", "new", "--name", "a b", "--tenant", "acme"]) == 2
