"""Members that are written down: one view, which never changes and is never old."""

import asyncio
from collections.abc import AsyncGenerator

from peers.discovery.last_good import LastGood
from peers.members import Members


class StaticDiscovery:
    """``members`` (at least one), for as long as the process lives."""

    def __init__(self, members: Members) -> None:
        self.last = LastGood("the static list of members", clock=lambda: 0.0)
        self.last.take(members)

    def __repr__(self) -> str:
        return f"<StaticDiscovery {len(self.last.view)} members>"

    async def views(self) -> AsyncGenerator[Members, None]:
        """The one view; then nothing more, until cancelled."""
        yield self.last.view
        await asyncio.get_running_loop().create_future()
