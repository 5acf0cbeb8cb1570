"""Real nodes with doors, and the Python client before them in both of its colours."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest

from cluster.config import CacheConfig, FeedConfig
from cluster.doors.resp import RespDoor
from cluster.node import Node
from doors import resp_config
from nodes import CACHES, captured, config, running
from snapring import AsyncClient, Client

PAGES = CacheConfig(name="pages", kind="store", max_staleness_s=600.0)
USERS = CacheConfig(
    name="user_json",
    sql="SELECT id, name FROM users WHERE id = $1",
    single=True,
    encoding="json",
    max_staleness_s=600.0,
)
BEHIND = FeedConfig(poll_period_s=600.0)
"""A node that follows the database only when it is asked for more than it has."""


@dataclass(frozen=True, slots=True)
class Served:
    """A node and where its door is."""

    node: Node
    address: str


@asynccontextmanager
async def served(url: str, *feeds: FeedConfig | None) -> AsyncIterator[list[Served]]:
    """A node for each of ``feeds``, alone on the database at ``url``: what one of them knows it told none."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(captured(url))
        yield [await stack.enter_async_context(_served(url, feed)) for feed in feeds or (None,)]


@asynccontextmanager
async def in_front_of(
    url: str, colour: "Colour", *feeds: FeedConfig | None
) -> AsyncIterator[tuple[list[Served], Any]]:
    """The same, and a client that asks them in turn."""
    async with served(url, *feeds) as nodes, colour([node.address for node in nodes]) as client:
        yield nodes, client


@asynccontextmanager
async def _served(url: str, feed: FeedConfig | None) -> AsyncIterator[Served]:
    settings = config(url, (*CACHES, PAGES, USERS))
    async with running(replace(settings, feed=feed or settings.feed)) as node:
        door = RespDoor(node, resp_config(), near=node, watching=node.watching)
        await door.start()
        try:
            yield Served(node, f"127.0.0.1:{door.port}")
        finally:
            await door.drain(0.0)


class Threaded:
    """A `Client` whose calls are awaited, each in a thread, in the context of whoever calls."""

    def __init__(self, addresses: str | Sequence[str], **options: Any) -> None:
        self.client = Client(addresses, **options)
        self.session = self.client.session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *args, **options)

        return call


COLOURS = pytest.mark.parametrize("colour", [AsyncClient, Threaded])
"""Both clients, to be called alike."""

Colour = Any
