"""Members found in DNS: real packets over UDP and TCP, from a zone that changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import uvloop
from dns.rdatatype import RdataType

from discoveries import PORT, THREE, Pauses, hosts, looking
from nameserver import SERVICE, NameServer
from peers.discovery import DiscoveryConfig, discovery
from peers.discovery.dns import DnsConfig, DnsDiscovery, relative
from peers.members import Address, Member

SRV, A, AAAA = RdataType.SRV, RdataType.A, RdataType.AAAA


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    """A DNS server whose zone names three pods."""
    async with NameServer() as running:
        running.headless(THREE)
        yield running


async def test_members_are_named_by_their_pods(server: NameServer) -> None:
    """One question brings names and addresses; the port is the form's, not the record's."""
    server.records[SERVICE, SRV] = [f"0 33 1234 {pod}.{SERVICE}" for pod in THREE]
    found = looking(server)
    assert await found.look()
    assert found.last.view == {
        Member(name=name): Address(host=host, port=PORT) for name, host in THREE.items()
    }
    assert server.asked == [("udp", SERVICE, SRV)]


async def test_weights_are_those_of_the_records_where_they_differ(server: NameServer) -> None:
    """A zone says them to all nodes alike; a target that is there for two ports counts once."""
    pods = dict(zip(THREE, (1, 3, 3), strict=True))
    server.records[SERVICE, SRV] = [
        f"0 {weight} {port} {pod}.{SERVICE}" for pod, weight in pods.items() for port in (7379, 7946)
    ]
    found = looking(server)
    assert await found.look()
    assert {member.name: member.weight for member in found.last.view} == pods


async def test_pods_that_come_and_go_move_nobodys_weight(server: NameServer) -> None:
    """Kubernetes has each pod's record say 100 / n: the ring of those who stay is the one it was."""
    found = looking(server)
    for pods, weight in ((THREE, 33), (THREE | {"snapring-3": "10.0.0.13"}, 25)):
        server.headless(pods)
        server.records[SERVICE, SRV] = [f"0 {weight} 7946 {pod}.{SERVICE}" for pod in pods]
        assert await found.look()
        assert set(found.last.view) == {Member(name=pod) for pod in pods}


@pytest.mark.parametrize(
    ("records", "weights"),
    [
        ([], []), ([0], [1]), ([33, 33], [1, 1]), ([1, 2], [1, 2]), ([0, 100], [1, 100]),
        ([65535, 6553], [100, 9]), ([65535, 0, 65535], [100, 1, 100]),
    ],
)  # fmt: skip
def test_weights_keep_their_proportions_within_what_a_ring_takes(
    records: list[int], weights: list[int]
) -> None:
    """All alike is 1; nothing is 0."""
    names = [str(number) for number in range(len(records))]
    assert relative(dict(zip(names, records, strict=True))) == dict(zip(names, weights, strict=True))


async def test_targets_without_an_address_beside_them_are_asked_for(server: NameServer) -> None:
    """A server may leave the additional section out; IPv6 is asked for where there is no IPv4."""
    server.headless(THREE | {"snapring-3": "fd00::3"})
    server.beside = False
    found = looking(server, max_lookups=2)
    assert await found.look()
    assert hosts(found.last.view) == THREE | {"snapring-3": "fd00::3"}
    asked = {(name.partition(".")[0], kind) for _, name, kind in server.asked[1:]}
    assert asked == {(pod, A) for pod in [*THREE, "snapring-3"]} | {("snapring-3", AAAA)}


async def test_each_change_of_the_zone_is_a_view(server: NameServer) -> None:
    """A pod that moves, one that joins, one that leaves."""
    states = [THREE, THREE | {"snapring-1": "10.0.0.99"}, THREE | {"snapring-3": "10.0.0.13"}, {}]
    states[3] = {"snapring-0": "10.0.0.10"}
    found = looking(server)
    async with aclosing(found.views()) as views:
        for state in states:
            server.headless(state)
            async with asyncio.timeout(10):
                await anext(views)
            assert hosts(found.last.view) == state


async def test_the_same_answer_written_otherwise_is_no_change(server: NameServer) -> None:
    """Servers rotate their records, and letters have no case in DNS."""
    found = looking(server)
    assert await found.look()
    server.headless(dict(reversed(THREE.items())))
    assert not await found.look()
    server.records[SERVICE, SRV] = [text.upper() for text in server.records[SERVICE, SRV]]
    server.beside = False
    assert not await found.look()
    assert (found.last.answers, found.last.partial) == (3, 0)


async def test_an_address_stays_while_it_is_still_named(server: NameServer) -> None:
    """A pod with two stacks, or an old and a new address, does not flap between them."""
    target = f"snapring-0.{SERVICE}"
    server.records[target, AAAA] = ["fd00::1"]
    found = looking(server)
    await found.look()
    assert hosts(found.last.view)["snapring-0"] == "10.0.0.10"
    server.records[target, A] = ["10.0.0.1", "10.0.0.10"]
    assert not await found.look()
    server.records[target, A] = []
    assert await found.look()
    assert hosts(found.last.view)["snapring-0"] == "fd00::1"
    server.records[target, A] = ["10.0.0.1"]
    assert not await found.look()


async def test_an_answer_that_is_cut_off_is_fetched_over_tcp(server: NameServer) -> None:
    """No member is missing because a datagram was too small."""
    many = {f"snapring-{n}": f"10.0.{n // 250}.{n % 250}" for n in range(200)}
    server.headless(many)
    found = looking(server)
    assert await found.look()
    assert hosts(found.last.view) == many
    assert [transport for transport, *_ in server.asked] == ["udp", "tcp"]


async def test_addresses_that_did_not_fit_are_asked_for(server: NameServer) -> None:
    """A server may drop the additional section without a word: only the answer counts as cut off."""
    many = {f"s{n}": f"10.0.0.{n}" for n in range(18)}
    server.headless(many)
    found = looking(server)
    assert await found.look()
    assert hosts(found.last.view) == many
    assert 1 < len(server.asked) <= 18
    assert {transport for transport, *_ in server.asked} == {"udp"}


async def test_without_srv_members_are_named_by_their_addresses(server: NameServer) -> None:
    """IPv4 first; the IPv6 addresses of the same pods would be other members."""
    server.without_srv("10.0.0.2", "10.0.0.1", "fd00::1")
    found = looking(server)
    assert await found.look()
    assert hosts(found.last.view) == {"10.0.0.1": "10.0.0.1", "10.0.0.2": "10.0.0.2"}
    server.without_srv("fd00::1")
    assert await found.look()
    assert hosts(found.last.view) == {"fd00::1": "fd00::1"}


async def test_names_take_over_from_addresses_and_never_go_back(server: NameServer) -> None:
    """A service may get its SRV records late; one answer without them must not rename the members."""
    server.without_srv("10.0.0.10")
    found = looking(server)
    assert await found.look()
    server.headless(THREE)
    assert await found.look()
    assert hosts(found.last.view) == THREE
    server.without_srv("10.0.0.10")
    assert not await found.look()
    assert hosts(found.last.view) == THREE


async def test_a_plain_name_is_asked_for_addresses_alone(server: NameServer) -> None:
    """``dns:///`` means what it says."""
    found = looking(server, srv=False)
    assert await found.look()
    assert set(hosts(found.last.view)) == set(THREE.values())
    assert server.asked == [("udp", SERVICE, A)]


@pytest.mark.parametrize(
    ("form", "asked"),
    [
        ("kubernetes:///snapring.default:7946", ("snapring.default.svc.moon.example.", SRV)),
        ("dns:///Nodes.Example:7946", ("nodes.example.", A)),
    ],
)
async def test_names_are_asked_for_absolutely(
    server: NameServer, form: str, asked: tuple[str, RdataType]
) -> None:
    """No search list is walked: one question, under the cluster's domain."""
    dns = DnsConfig(cluster_domain="moon.example", nameservers=(server.address,))
    found = discovery(DiscoveryConfig(form=form, dns=dns))
    assert isinstance(found, DnsDiscovery)
    assert not await found.look()
    assert server.asked == [("udp", *asked)]


async def test_rounds_are_apart_by_a_drawn_pause(server: NameServer) -> None:
    """Nodes that started together do not ask together, and none asks faster than the bound."""
    pauses = Pauses()
    found = looking(server, pauses=pauses)
    async with aclosing(found.views()) as views:
        await anext(views)
        waiting = asyncio.create_task(anext(views))
        while len(pauses.made_s) < 20:
            await asyncio.sleep(0.001)
        server.headless({"snapring-0": "10.0.0.1"})
        await waiting
    assert all(1.0 <= pause_s <= 2.0 for pause_s in pauses.made_s)
    assert max(pauses.made_s) - min(pauses.made_s) > 0.5


async def test_cancelling_ends_it_and_it_can_go_on(server: NameServer) -> None:
    """A question under way is given up; the next iteration begins with the view that was kept."""
    found = looking(server, round_timeout_s=60.0, attempt_timeout_s=60.0)
    views = found.views()
    first = await anext(views)
    server.silent.add((SERVICE, SRV))
    waiting = asyncio.create_task(anext(views))
    while len(server.asked) < 2:
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with aclosing(found.views()) as again, asyncio.timeout(10):
        assert await anext(again) == first
    assert len(server.asked) == 2


def test_it_works_on_the_loop_that_nodes_run_on() -> None:
    """Datagrams and a connection, on uvloop."""

    async def look() -> None:
        many = {f"snapring-{n}": f"10.0.0.{n}" for n in range(100)}
        async with NameServer() as server:
            server.headless(many)
            found = looking(server)
            assert await found.look()
            assert hosts(found.last.view) == many
            assert [transport for transport, *_ in server.asked] == ["udp", "tcp"]

    uvloop.run(look())
