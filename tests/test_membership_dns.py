"""Real nodes that find each other in a real DNS: they come, go, drain and outlive its failures."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from dns.rcode import Rcode
from dns.rdatatype import RdataType

from gatherings import Attendant, agree, attending
from nameserver import SERVICE, NameServer
from peer_process import until
from peers.discovery.dns import DnsConfig, DnsDiscovery

HOSTS: Final = {f"snapring-{number}": f"127.0.0.{number + 1}" for number in range(3)}
"""The loopback has an address for each, so that all can have the one port that a service has."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def node(name: str, server: NameServer, port: int) -> AsyncIterator[Attendant]:
    """A node at its own address that asks ``server`` often."""
    config = DnsConfig(nameservers=(server.address,), period_least_s=0.01, period_most_s=0.02)
    found = DnsDiscovery(SERVICE, port=port, srv=True, config=config)
    async with attending(name, discovery=found, host=HOSTS[name], port=port) as made:
        yield made


def zone(server: NameServer, *numbers: int) -> None:
    """DNS names these pods."""
    server.headless({f"snapring-{number}": HOSTS[f"snapring-{number}"] for number in numbers})


@asynccontextmanager
async def two_nodes(port: int) -> AsyncIterator[tuple[NameServer, Attendant, Attendant]]:
    """What names them, and two that have found each other."""
    async with (
        NameServer() as server,
        node("snapring-0", server, port) as a,
        node("snapring-1", server, port) as b,
    ):
        zone(server, 0, 1)
        await until(lambda: agree(a, b) and a.names == "snapring-0 snapring-1")
        yield server, a, b


async def test_nodes_find_each_other_in_dns() -> None:
    """One more comes, drains and goes; each time all have one ring, and those who stay reach each other."""
    port = free_port()
    async with two_nodes(port) as (server, a, b):
        two = a.membership.epoch
        async with node("snapring-2", server, port) as c:
            zone(server, 0, 1, 2)
            await until(lambda: agree(a, b, c) and len(a.membership.ring.members) == 3)
            assert await c.ask("snapring-0", body=b"found") == b"found"
            c.membership.drain()
            await until(lambda: agree(a, b, c) and a.membership.epoch == two)
        zone(server, 0, 1)
        await until(lambda: all(len(one.membership._view) == 2 for one in (a, b)))
        assert await a.ask("snapring-1", body=b"still here") == b"still here"
        assert (a.membership.changes, b.membership.changes, a.membership.epoch) == (3, 3, two)


async def test_nodes_outlive_the_failure_of_dns() -> None:
    """The ring and the channels are what they were, although nobody is named for a while."""
    async with two_nodes(free_port()) as (server, a, _):
        generation = a.membership.generation
        server.rcodes[SERVICE, RdataType.SRV] = Rcode.SERVFAIL
        failures = a.membership._discovery.last.failures
        await until(lambda: a.membership._discovery.last.failures >= failures + 3)
        server.rcodes.clear()
        server.records = {(SERVICE, RdataType.SRV): [], (SERVICE, RdataType.A): []}
        await until(lambda: a.membership._discovery.last.empty >= 3)
        zone(server, 0, 1)
        await until(lambda: not a.membership._discovery.last.last_error)
        assert a.membership.generation.ring is generation.ring
        assert a.membership.generation.channels == generation.channels
        assert await a.ask("snapring-1", body=b"the same") == b"the same"
