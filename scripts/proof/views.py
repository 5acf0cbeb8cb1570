"""Whom each node sees: what its own DNS server says, which a fault may change while the node runs."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from scripts.proof.nameserver import NameServer


class Views:
    """Every node sees whoever is in service, unless a fault has it `see` something else.

    ``addresses`` are those of all nodes that there may be, by name; ``servers`` the DNS server of each.
    """

    def __init__(self, addresses: Mapping[str, str], servers: Mapping[str, NameServer], port: int) -> None:
        self.addresses = addresses
        self.port = port
        self._servers = servers
        self._in_service: list[str] = []
        self._seen: dict[str, Mapping[str, str]] = {}

    def __repr__(self) -> str:
        return f"<Views {self._in_service} otherwise seen by {sorted(self._seen)}>"

    def nameserver(self, name: str) -> int:
        """The port of the DNS server that ``name`` asks."""
        return self._servers[name].port

    def admit(self, name: str) -> None:
        """``name`` is in service."""
        self._in_service = sorted({*self._in_service, name})
        self._publish()

    def dismiss(self, name: str) -> None:
        """``name`` is no more."""
        self._in_service = [other for other in self._in_service if other != name]
        self._publish()

    def see(self, viewer: str, names: Sequence[str], elsewhere: Mapping[str, str] | None = None) -> None:
        """Let ``viewer`` see ``names`` alone, some of them at addresses ``elsewhere``, until `mend`."""
        self._seen[viewer] = {name: {**self.addresses, **(elsewhere or {})}[name] for name in names}
        self._publish()

    def mend(self) -> None:
        """All see the same again."""
        self._seen.clear()
        self._publish()

    def _publish(self) -> None:
        everybody = {name: self.addresses[name] for name in self._in_service}
        for viewer, server in self._servers.items():
            server.members = self._seen.get(viewer, everybody)


@contextlib.asynccontextmanager
async def views(addresses: Mapping[str, str], port: int) -> AsyncIterator[Views]:
    """A DNS server for each of ``addresses``; all nodes answer their peers on ``port``."""
    async with contextlib.AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(NameServer(port)) for name in addresses}
        yield Views(addresses, servers, port)
