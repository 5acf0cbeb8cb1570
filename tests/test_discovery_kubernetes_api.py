"""Who may ask the Kubernetes API, and what it takes: the account, the extra, the secret."""

import subprocess
import sys
from pathlib import Path

import pytest

from peers.discovery import DiscoveryConfig, discovery
from peers.discovery.kubernetes_api import Access, configuration
from slice_server import TOKEN
from snapring.errors import ConfigInvalid


def test_outside_a_cluster_it_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no account is found, the message says what it takes."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigInvalid, match="in a Kubernetes pod with a service account"):
        discovery(DiscoveryConfig(form="endpointslice:///snapring.default:7946"))


async def test_inside_a_cluster_the_account_of_the_pod_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Server from the environment, token and authority from files, the token read again as it is replaced."""
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_text("a certificate")
    loader = "kubernetes.aio.config.incluster_config."
    monkeypatch.setattr(f"{loader}SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(f"{loader}SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    made = configuration(None)
    assert (made.host, made.ssl_ca_cert) == ("https://[fd00::1]:443", str(authority))
    assert (await made.auth_settings())["BearerToken"]["value"] == "bearer first"


def test_without_the_extra_only_endpointslice_is_refused() -> None:
    """The node starts without the package; choosing what needs it says how to get it."""
    program = """
import sys
sys.modules["kubernetes"] = None
from peers.discovery import DiscoveryConfig, discovery
from snapring.errors import ConfigInvalid
discovery(DiscoveryConfig(form="static:///a=10.0.0.1:7946"))
try:
    discovery(DiscoveryConfig(form="endpointslice:///snapring.default:7946"))
except ConfigInvalid as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'snapring-node[kubernetes]'" in done.stdout


def test_the_package_is_not_imported_unless_chosen() -> None:
    """Half a second and tens of megabytes that other discoveries do not pay."""
    program = """
import sys
from peers.discovery import DiscoveryConfig, discovery
discovery(DiscoveryConfig(form="static:///a=10.0.0.1:7946"))
print("kubernetes" in sys.modules, "aiohttp" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_token_is_never_shown() -> None:
    """Not in the text of what holds it."""
    access = Access(server="https://10.0.0.1", token=TOKEN)
    assert TOKEN not in repr(access)
    assert TOKEN not in repr(DiscoveryConfig(form="endpointslice:///snapring.default:7946", access=access))
