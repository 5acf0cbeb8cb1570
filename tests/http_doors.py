"""An HTTP door on a real socket, a plain client to talk to it, and what Prometheus makes of its metrics."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cluster.config import HttpConfig
from cluster.doors.http import HttpDoor, Pages, Sources
from cluster.doors.resp.commands import Counts
from cluster.node import Node
from cluster.readiness import Readiness, follows
from nodes import WITHIN_S, config

Sample = tuple[str, frozenset[tuple[str, str]]]
READY = Readiness({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; ``headers`` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


class Asking:
    """One connection to a door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """These bytes, whatever they are."""
        self.writer.write(data)

    async def answer(self, *, head: bool = False) -> Answer:
        """The next answer; to a HEAD one without its body."""
        async with asyncio.timeout(WITHIN_S):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = b"" if head else await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status=int(first.split(" ")[1]), headers=headers, body=body)

    async def ask(self, path: str, *headers: str, method: str = "GET") -> Answer:
        """One request and its answer."""
        self.send(request(path, *headers, method=method))
        return await self.answer(head=method == "HEAD")

    async def ended(self) -> bool:
        """Whether nothing more comes, since the other side has closed."""
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request without a body."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: node", *headers, "", "")).encode()


def idle_node() -> Node:
    """A node that follows nothing."""
    return Node(config("postgresql://nowhere.invalid/none"))


def sources_of(node: Node, **others: Any) -> Sources:
    """The numbers of ``node``, and of whatever else is given."""
    readiness = Readiness({"feed": follows(node.timeline, node.feed)})
    return Sources(**{"node": node, "readiness": readiness, "resp": Counts(), **others})


@asynccontextmanager
async def serving(sources: Sources | None = None, **settings: Any) -> AsyncIterator[HttpDoor]:
    """A door, by default of a node that follows nothing."""
    sources = sources or sources_of(idle_node())
    door = HttpDoor(Pages(sources, sources.node.describe), HttpConfig(port=0, **settings))
    await door.start()
    try:
        yield door
    finally:
        await door.stop()


@asynccontextmanager
async def connected(door: HttpDoor) -> AsyncIterator[Asking]:
    """A connection to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        yield Asking(reader, writer)
    finally:
        writer.close()


def parsed(text: str) -> dict[Sample, float]:
    """Every sample of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Meter:
    """The metrics of ``sources`` and how they move, as Prometheus sees them."""

    def __init__(self, sources: Sources) -> None:
        self._pages = Pages(sources, sources.node.describe)

    def text(self, accept: str = "") -> str:
        """One exposition."""
        return self._pages.answer("GET", "/metrics", {"accept": accept}).body.decode()

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples now that have these labels, and maybe others; 0 where there is none."""
        return _sum(parsed(self.text()), name, labels)

    def since(self) -> Callable[..., float]:
        """By how much a sample has moved since this call."""
        before = parsed(self.text())

        def moved(name: str, **labels: str) -> float:
            return self.value(name, **labels) - _sum(before, name, labels)

        return moved


def _sum(samples: Mapping[Sample, float], name: str, labels: Mapping[str, str]) -> float:
    return sum(
        value
        for (of, labelled), value in samples.items()
        if of == f"snapring_{name}" and labels.items() <= dict(labelled).items()
    )
