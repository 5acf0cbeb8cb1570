"""What must be configured together so that nobody comes in by an oversight."""

from pathlib import Path

import pytest

from cluster.config import CacheConfig, TenantConfig
from cluster.peering.messages import definition
from test_config import MEMBERS, MINIMAL, SECRET, Reader

ALONE = MINIMAL + '[grpc]\nport = "none"\n'
KEYS = '[access]\nkeys_file = "keys"\n'
TLS = '[tls]\ncert_file = "c"\nkey_file = "k"\n'


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """A reader with a folder of its own."""
    return Reader(tmp_path)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", "set access.keys_file and tls.cert_file,"),
        (KEYS, "set tls.cert_file,"),
        (TLS, "set access.keys_file,"),
    ],
)
def test_strangers_reach_no_door_without_keys_and_tls(read: Reader, text: str, missing: str) -> None:
    """Keys in the clear can be read on the way; TLS alone asks nobody who he is."""
    (problem,) = read.problems(ALONE + text, resp__host="0.0.0.0")
    assert missing in problem
    assert "resp.insecure = true" in problem
    assert read(ALONE + text, resp__host="0.0.0.0", resp__insecure="true").config.resp.insecure


def test_with_both_any_address_will_do(read: Reader) -> None:
    """Nothing insecure has to be written out."""
    assert read(ALONE + KEYS + TLS, resp__host="0.0.0.0").config.resp.host == "0.0.0.0"


@pytest.mark.parametrize(
    "text",
    [
        "[tls]\ncert_file = 'c'",
        "[tls]\nkey_file = 'k'",
        "[tls]\nclient_ca_file = 'a'",
        "[peers]\ncert_file = 'c'",
        "[peers]\nca_file = 'a'",
        "[quotas]\nrate = 5",
        "[tenants.acme]",
        "[caches.users]\nsql = 'SELECT 1'\ntenants = ['acme']",
        "[caches.users]\nkind = 'store'\ntenant_argument = true",
    ],
)
def test_half_a_protection_is_refused(read: Reader, text: str) -> None:
    """A setting that could not do what it says stops the node."""
    assert len(read.problems(ALONE + text)) >= 1


def test_nodes_reach_each_other_by_certificates(read: Reader) -> None:
    """Then no insecure is needed; who is let in must follow from something."""
    files = "cert_file = 'c'\nkey_file = 'k'\nca_file = 'a'\nhost = '0.0.0.0'\n"
    node = (
        f'{ALONE}[node]\nname = "{{name}}"\nsecrets = ["{SECRET}"]\n[peers]\n{files}discovery = "{{form}}"\n'
    )
    assert read(node.format(name="node-0", form=MEMBERS)).config.peers.host == "0.0.0.0"
    form = "kubernetes:///node.default:7946"
    assert read(node.format(name="node-0", form=form)).config.peers.allowed is None
    (problem,) = read.problems(node.format(name="node", form=form))
    assert "peers.allowed" in problem
    assert read(node.format(name="node", form=form) + 'allowed = ["n-*"]').config.peers.allowed == ("n-*",)


def test_a_tenant_has_a_table_of_its_own_or_the_common_one(read: Reader) -> None:
    """And takes nothing from the other; from the environment too."""
    text = ALONE + KEYS + "[quotas]\nrate = 5\nin_flight = 7\n[tenants.acme]\nrate = 9\n"
    config = read(text, {"SNAPRING_TENANTS__ACME__BURST": "3"}).config
    assert config.quota("acme") == TenantConfig(rate=9, burst=3)
    assert config.quota("anybody") == TenantConfig(rate=5, in_flight=7)


def test_the_program_shows_no_key(read: Reader, tmp_path: Path) -> None:
    """`snapring config` names files: what is in them stays there."""
    (tmp_path / "keys").write_text("snapring_a_secret")
    settings = read(ALONE + f'[access]\nkeys_file = "{tmp_path / "keys"}"\n')
    assert "snapring_a_secret" not in str(settings)


def test_who_binds_the_tenant_and_who_does_not_mean_different_caches() -> None:
    """So one node never answers for the other while a setting changes."""
    plain = CacheConfig(name="a", sql="SELECT $1")
    assert definition(plain) != definition(CacheConfig(name="a", sql="SELECT $1", tenant_argument=True))


@pytest.mark.parametrize("text", [KEYS, TLS, KEYS + TLS])
def test_the_grpc_door_asks_for_what_the_others_ask(read: Reader, text: str) -> None:
    """So it may be open beside them; strangers reach it only behind both."""
    assert read(MINIMAL + text).config.grpc.port == 7380
    if text == KEYS + TLS:
        assert read(MINIMAL + text, grpc__host="0.0.0.0").config.grpc.host == "0.0.0.0"
    else:
        (problem,) = read.problems(MINIMAL + text, grpc__host="0.0.0.0")
        assert "grpc.insecure = true" in problem
