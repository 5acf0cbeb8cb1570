"""What the nodes say of themselves, through INFO."""

import asyncio
from collections.abc import Sequence
from typing import Final

from scripts.demonstration.resp import Resp

_PERIOD_S: Final = 0.25


class NodeInfo:
    """The last INFO of the node called ``name``; a field that it did not give reads as ``fallback``."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self._host, self._port = host, port
        self._fields: dict[str, str] = {}

    async def follow(self) -> None:
        """Ask again and again, until cancelled; while the node does not answer, keep what is known."""
        while True:
            try:
                await self.refresh()
            except OSError:
                self._fields["breaker_state"] = "no answer"
            await asyncio.sleep(_PERIOD_S)

    async def refresh(self) -> None:
        """Ask once."""
        connection = await Resp.open(self._host, self._port)
        try:
            (answer,) = await connection.ask([(b"INFO",)])
        finally:
            await connection.close()
        self._fields = parsed(answer)

    def text(self, name: str, fallback: str = "?") -> str:
        """One field."""
        return self._fields.get(name, fallback)

    def number(self, name: str) -> float:
        """One field that is a number; 0 where it is not given."""
        return float(self._fields.get(name, 0))


class ClusterInfo:
    """What all ``nodes`` say, together."""

    def __init__(self, nodes: Sequence[NodeInfo]) -> None:
        self.nodes = nodes

    async def refresh(self) -> None:
        """Ask each once."""
        await asyncio.gather(*(node.refresh() for node in self.nodes))

    def total(self, name: str) -> int:
        """The sum of a counter."""
        return int(sum(node.number(name) for node in self.nodes))

    def worst(self, name: str) -> float:
        """The greatest of a number."""
        return max(node.number(name) for node in self.nodes)

    @property
    def breaker(self) -> str:
        """The state of every breaker, in one word if they agree."""
        return ", ".join(sorted({node.text("breaker_state") for node in self.nodes}))

    @property
    def hit_ratio(self) -> float:
        """The part of the reads that were answered out of the memory of whichever node had them to answer."""
        hits = self.total("hits")
        return hits / max(1, hits + self.total("misses"))

    def rows(self) -> list[dict[str, object]]:
        """A row a node: its share of the keys, its own hit ratio, and how many reads it passed on."""
        return [
            {
                "name": node.name,
                "share": node.number("share"),
                "hit_ratio": node.number("hit_ratio"),
                "forwarded": int(node.number("forwarded")),
            }
            for node in self.nodes
        ]


def parsed(answer: object) -> dict[str, str]:
    """The fields of an INFO text: lines ``name:value``, headings begin with ``#``."""
    assert isinstance(answer, bytes | str), f"INFO answered {answer!r}"
    text = answer.decode() if isinstance(answer, bytes) else answer
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, found, value in lines if found}
