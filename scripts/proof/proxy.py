"""A TCP proxy on loopback before PostgreSQL, or between two nodes, for breaking the network between the two ends.

Connections to PostgreSQL are told apart by the ``application_name`` of their startup packet, so a fault may concern the
feed alone. A fault holds for the connections there are and for those that come, until `Proxy.flow`. What a black
hole swallowed is lost for good: the connection it belonged to stays silent until its client gives up.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

from scripts.proof.link import BOTH, End, Link, Rule, Towards, Way

HOST: Final = "127.0.0.1"

_NO_RULE: Final = Rule(only=None, towards=BOTH, way=Way.FLOW)


class Proxy:
    """Listens on ``host`` and ``port`` (0: any free one, the same from then on) for what is meant for ``target``.

    For one event loop. Each fault takes ``only``: the application name that it is limited to.
    """

    def __init__(self, target: tuple[str, int], *, port: int = 0, host: str = HOST) -> None:
        self.target = target
        self.host = host
        self.port = port
        self._links: set[Link] = set()
        self._rules: list[Rule] = []
        self._listener: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.port} -> {self.target} links={len(self._links)} rules={self._rules}>"

    @property
    def names(self) -> list[str]:
        """The application names of what is connected, sorted; empty where the client has not said one yet."""
        return sorted(link.name or "" for link in self._links)

    async def open(self) -> None:
        """Listen. No-op where it does."""
        if self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(
                lambda: End(Link(self), Towards.CLIENT), self.host, self.port, reuse_address=True
            )
            self.port = self._listener.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()

    def retarget(self, host: str, port: int) -> None:
        """New connections go there; those that there are stay where they are."""
        self.target = (host, port)

    def cut(self, only: str | None = None) -> int:
        """Reset connections; how many. New ones are welcome."""
        found = [link for link in self._links if only in (None, link.name)]
        for link in found:
            link.abort()
        return len(found)

    def refuse(self) -> None:
        """Reset every connection and close the port until `flow`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self.cut()

    def stall(self, only: str | None = None, *, towards: frozenset[Towards] = BOTH) -> None:
        """Hold what is sent until `flow`; nothing is lost, and new connections are accepted."""
        self._begin(Rule(only=only, towards=towards, way=Way.HELD))

    def black_hole(self, only: str | None = None, *, towards: frozenset[Towards] = BOTH) -> None:
        """Swallow what is sent, hanging up included; new connections are accepted, and swallowed too."""
        self._begin(Rule(only=only, towards=towards, way=Way.LOST))

    def delay(self, seconds: float, only: str | None = None, *, towards: frozenset[Towards] = BOTH) -> None:
        """Let everything arrive ``seconds`` late, in order."""
        self._begin(Rule(only=only, towards=towards, way=Way.FLOW, delay_s=seconds))

    async def flow(self) -> None:
        """Mend every fault."""
        self._rules.clear()
        for link in tuple(self._links):
            link.mend()
        await self.open()

    # -- what links ask and say ----------------------------------------------------------------------

    def rule(self, name: str | None, towards: Towards) -> Rule:
        """What holds for a connection of that name, None while it is unknown, in that direction."""
        fitting = (rule for rule in self._rules if rule.only in (None, name) and towards in rule.towards)
        return next(fitting, _NO_RULE)

    def joined(self, link: Link) -> None:
        """A client connected. One that was accepted just before the port closed is reset."""
        if self._listener is None:
            link.abort()
        else:
            self._links.add(link)

    def left(self, link: Link) -> None:
        """Both its ends are closed."""
        self._links.discard(link)

    def _begin(self, rule: Rule) -> None:
        self._rules.insert(0, rule)
