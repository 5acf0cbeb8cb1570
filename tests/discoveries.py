"""Discoveries for tests: before servers of the test's own, on its clock, with pauses that take no time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from random import Random

from nameserver import SERVICE, NameServer
from peers.discovery.dns import DnsConfig, DnsDiscovery
from peers.discovery.endpointslice import EndpointSliceConfig, EndpointSliceDiscovery
from peers.discovery.kubernetes_api import Access
from peers.members import Members
from slice_server import NAMESPACE, TOKEN, Answer, SliceServer
from slice_server import SERVICE as SLICED

PORT = 7946
THREE = {"snapring-0": "10.0.0.10", "snapring-1": "10.0.0.11", "snapring-2": "10.0.0.12"}


class Clock:
    """Time that stands still until told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Pauses:
    """Pauses that are noted and not made."""

    def __init__(self) -> None:
        self.made_s: list[float] = []

    async def __call__(self, pause_s: float) -> None:
        self.made_s.append(pause_s)
        await asyncio.sleep(0)


def looking(
    *servers: NameServer,
    srv: bool = True,
    clock: Clock | None = None,
    pauses: Pauses | None = None,
    **bounds: object,
) -> DnsDiscovery:
    """A discovery that asks these servers, in this order."""
    config = DnsConfig(nameservers=tuple(one.address for one in servers))
    return DnsDiscovery(
        SERVICE,
        port=PORT,
        srv=srv,
        config=replace(config, **bounds),  # type: ignore[arg-type]
        clock=clock or Clock(),
        random=Random(1),
        sleep=pauses or Pauses(),
    )


def hosts(view: Members) -> dict[str, str]:
    """Names and addresses."""
    return {member.name: address.host for member, address in view.items()}


class Watching:
    """A discovery before a server of the test's, and its views."""

    def __init__(self, server: SliceServer, **bounds: float) -> None:
        self.server = server
        self.clock, self.pauses = Clock(), Pauses()
        self.discovery = EndpointSliceDiscovery(
            SLICED,
            namespace=NAMESPACE,
            port=PORT,
            config=replace(EndpointSliceConfig(), **bounds),  # type: ignore[arg-type]
            access=Access(server=server.url, token=TOKEN),
            clock=self.clock,
            random=Random(1),
            sleep=self.pauses,
        )
        self.last = self.discovery.last
        self.views = self.discovery.views()

    async def view(self) -> dict[str, str]:
        """The next view: names and addresses."""
        async with asyncio.timeout(10):
            return hosts(await anext(self.views))

    async def through(self, count: int) -> None:
        """Go on until that many requests have come, and nothing new has."""
        waiting = asyncio.create_task(anext(self.views))
        await self.server.until(count)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@asynccontextmanager
async def watching(*answers: Answer, **bounds: float) -> AsyncIterator[Watching]:
    """A discovery whose requests are answered so, one by one."""
    async with SliceServer(*answers) as server:
        made = Watching(server, **bounds)
        async with aclosing(made.views):
            yield made
