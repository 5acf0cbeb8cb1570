"""Address forms: what operators write, what comes of it, and every mistake at once."""

import asyncio
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.discovery import DiscoveryConfig, discovery
from peers.discovery.dns import DnsDiscovery
from peers.discovery.forms import HostForm, ServiceForm, StaticForm, parse
from peers.discovery.static import StaticDiscovery
from peers.members import Address, Member
from snapring.errors import ConfigInvalid

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
MEMBERS = st.dictionaries(
    st.builds(Member, name=NAMES, zone=st.just("") | NAMES, weight=st.integers(1, 100)),
    st.builds(Address, host=st.ip_addresses().map(lambda ip: ip.compressed), port=st.integers(1, 65_535)),
    min_size=1,
).filter(lambda found: len({member.name for member in found}) == len(found) == len(set(found.values())))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            "static:///a=10.0.0.1:7946, b=[fd00:0::2]:1;weight=3;zone=eu-1",
            StaticForm(
                members={
                    Member(name="a"): Address(host="10.0.0.1", port=7946),
                    Member(name="b", zone="eu-1", weight=3): Address(host="fd00::2", port=1),
                }
            ),
        ),
        ("dns:///Nodes.Example.:7946", HostForm(host="nodes.example", port=7946)),
        (
            "kubernetes:///snapring.default:7946",
            ServiceForm(service="snapring", namespace="default", port=7946, watched=False),
        ),
        (
            " endpointslice:///snapring.prod-1:65535",
            ServiceForm(service="snapring", namespace="prod-1", port=65_535, watched=True),
        ),
    ],
)
def test_each_form_says_where_the_nodes_are(text: str, form: object) -> None:
    """One example of each."""
    assert parse(text) == form


@given(MEMBERS)
def test_members_that_are_written_down_read_the_same(members: dict[Member, Address]) -> None:
    """Whatever their names, zones, weights and addresses."""

    def written(member: Member, address: Address) -> str:
        six = ip_address(address.host).version == 6
        host = f"[{address.host}]" if six else address.host
        zone = f";zone={member.zone}" if member.zone else ""
        return f"{member.name}={host}:{address.port}{zone};weight={member.weight}"

    form = parse("static:///" + ",".join(written(*pair) for pair in members.items()))
    assert isinstance(form, StaticForm)
    assert form.members == members


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not say where"),
        ("snapring.default:7946", "does not say where"),
        ("consul:///snapring:1", "does not say where"),
        ("kubernetes://snapring.default:7946", "does not say where"),
        ("static:///", "expected a member"),
        ("static:///a=10.0.0.1:1,", "expected a member"),
        ("static:///10.0.0.1:1", "expected a member"),
        ("static:///-a=10.0.0.1:1", "expected a member"),
        ("static:///a=node-a:1", "expected an IP address"),
        ("static:///a=10.0.0.1", "expected an IP address"),
        ("static:///a=10.0.0.01:1", "expected an IP address"),
        ("static:///a=fd00::1:1", "expected an IP address"),
        ("static:///a=[10.0.0.1]:1", "no other, stands in brackets"),
        ("static:///a=10.0.0.1:0", "expected a port"),
        ("static:///a=10.0.0.1:65536", "expected a port"),
        ("static:///a=10.0.0.1:+1", "expected a port"),
        ("static:///a=10.0.0.1:1;weight=0", "weight=1 to 100"),
        ("static:///a=10.0.0.1:1;weight=101", "weight=1 to 100"),
        ("static:///a=10.0.0.1:1;zone=", "expected zone=NAME"),
        ("static:///a=10.0.0.1:1;zone=x;zone=y", "expected zone=NAME"),
        ("static:///a=10.0.0.1:1;rack=x", "expected zone=NAME"),
        ("static:///a=10.0.0.1:1,a=10.0.0.2:1;zone=z", "another member named a"),
        ("static:///a=10.0.0.1:1,b=10.0.0.1:1", "the same address"),
        ("dns:///nodes.example", "expected a DNS name"),
        ("dns:///10.0.0.1:7946", "static:///"),
        ("dns:///nodes..example:1", "expected a DNS name"),
        ("dns:///nodes.example:x", "expected a port"),
        ("kubernetes:///snapring:7946", "its namespace"),
        ("kubernetes:///snapring.default.svc:7946", "its namespace"),
        ("endpointslice:///Snapring.default:7946", "its namespace"),
        ("endpointslice:///snapring.default", "its namespace"),
        ("kubernetes:///snapring.default:", "expected a port"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(text: str, said: str) -> None:
    """One example of each kind."""
    with pytest.raises(ConfigInvalid, match=said):
        parse(text)


def test_every_mistake_of_a_list_is_named() -> None:
    """Not only the first."""
    with pytest.raises(ConfigInvalid) as refused:
        parse("static:///a=10.0.0.1:1,b,c=10.0.0.3:99999,a=10.0.0.1:1")
    assert len(refused.value.problems) == 4


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is raised."""
    for scheme in ("", "static:///", "static:///a=", "dns:///", "kubernetes:///", "endpointslice:///"):
        try:
            parse(scheme + text)
        except ConfigInvalid as refused:
            assert refused.problems


async def test_static_members_are_one_view_and_no_end() -> None:
    """It waits, as the others do, and is never old."""
    found = discovery(DiscoveryConfig(form="static:///a=10.0.0.1:1,b=10.0.0.2:1"))
    assert isinstance(found, StaticDiscovery)
    views = found.views()
    assert {member.name for member in await anext(views)} == {"a", "b"}
    waiting = asyncio.create_task(anext(views))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (found.last.age_s, len(found.last.view)) == (0.0, 2)


def test_a_kubernetes_form_is_asked_of_dns() -> None:
    """Under the cluster's domain; the port is the form's."""
    config = DiscoveryConfig(form="kubernetes:///snapring.default:7946")
    assert "snapring.default.svc.cluster.local." in repr(discovery(config))
    assert isinstance(discovery(config), DnsDiscovery)
