"""Which node owns which slot, as CLUSTER SLOTS tells it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from snapring.errors import CallInvalid
from snapring.keys import SLOTS

DEFAULT_PORT: Final = 7379
_MAX_PORT: Final = 65_535
_NOBODY: Final = 0


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """``host``, ``host:port`` or ``[v6]:port``. Raises `CallInvalid`."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.netloc != text or parts.username is not None:
        raise CallInvalid(f"{text!r} is no address: write host:port, such as 'snapring-0.snapring:7379'")
    return Address(host, DEFAULT_PORT if port is None else port)


@dataclass(frozen=True, slots=True)
class Routes:
    """``groups``: an owner, then those that stand in for it; ``table``: the group of each slot, 0 for nobody."""

    groups: tuple[tuple[Address, ...], ...]
    table: Sequence[int]

    def of(self, slot: int) -> tuple[Address, ...]:
        """Whom to ask for a key in ``slot``, best first; empty where nobody owns it."""
        return self.groups[self.table[slot]]


def routes(reply: object, asked: Address) -> Routes | None:
    """What ``asked`` answered to CLUSTER SLOTS; None where that is no map of slots to use.

    An empty host stands for the one that was asked, as in Redis.
    """
    groups: dict[tuple[Address, ...], int] = {(): _NOBODY}
    table = [_NOBODY] * SLOTS
    try:
        for first, last, *nodes in cast("Sequence[Sequence[Any]]", reply):
            group = tuple(_address(node, asked) for node in nodes)
            if not 0 <= first <= last < SLOTS or not group:
                return None
            number = groups.setdefault(group, len(groups))
            table[first : last + 1] = [number] * (last + 1 - first)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    return Routes(tuple(groups), table) if len(groups) > 1 else None


def _address(node: Sequence[Any], asked: Address) -> Address:
    host, port = node[0], node[1]
    name = host.decode() if isinstance(host, bytes) else ""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= _MAX_PORT:
        raise ValueError("not a port")
    return Address(name or asked.host, port)


def known(routed: Routes | None, seeds: Sequence[Address]) -> Mapping[Address, None]:
    """Every node there is to ask, the seeds first."""
    found = dict.fromkeys(seeds)
    for group in routed.groups if routed else ():
        found.update(dict.fromkeys(group))
    return found
