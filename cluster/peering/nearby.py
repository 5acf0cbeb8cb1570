"""Reads that leave their answer in this node's memory, also where another owns the key: for who watches it here."""

from cluster.node import Node
from cluster.peering.sharing import Sharing
from cluster.requests import Consistency, Reply
from snapring.keys import Key


class Nearby:
    """``node``'s own reads, before which the nodes that are nearer to a key are asked for a copy of its entry."""

    def __init__(self, node: Node, sharing: Sharing) -> None:
        self._node = node
        self._sharing = sharing
        self.timeline = node.timeline
        self.hit = node.hit

    def __repr__(self) -> str:
        return f"<Nearby {self._node!r}>"

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """The answer, by the monotonic time ``deadline_s``. Raises `SnapringError`."""
        await self._sharing.fetch(key, deadline_s)
        return await self._node.read(key, consistency, deadline_s)
