"""What every node of a cluster says of itself, asked at their RESP doors, from one that is known."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.asking import Introduction, Refused, ask
from snapring.errors import PermissionDenied, Unauthenticated, Unavailable

MAX_NODES: Final = 1000
_AT_ONCE: Final = 32

Info = Mapping[str, Mapping[str, str]]
"""The fields of INFO by section, both in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What one node says of another."""

    name: str
    door: str
    connected: bool
    breaker: str
    kinship: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One node: what it says, or in ``error`` why nothing. ``door`` is where it was asked, empty if nowhere.

    ``denied``: it answers, but not to whoever asked.
    """

    name: str
    door: str
    info: Info = field(default_factory=dict)
    error: str = ""
    denied: type[PermissionDenied | Unauthenticated] | None = None


async def survey(doors: Iterable[str], *, within_s: float, by: Introduction | None = None) -> list[Found]:
    """The nodes at ``doors`` and all others that they tell of, by name. ``within_s`` bounds each question,
    which they answer to administrators only where they ask for credentials.

    Raises `Unavailable` if none of ``doors`` answers; `PermissionDenied` or `Unauthenticated` if one does, but not to
    who asks.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def look(door: str, name: str = "") -> Found:
        async with places:
            return await _look(door, name, within_s, by)

    first = await asyncio.gather(*map(look, dict.fromkeys(doors)))
    if all(found.error for found in first):
        denied = next((found.denied for found in first if found.denied), None)
        raise (denied or Unavailable)("; ".join(found.error for found in first))
    nodes = {found.name or found.door: found for found in first}
    while new := _unseen(nodes):
        for found in await asyncio.gather(*(look(door, name) for name, door in new.items())):
            nodes[found.name] = found
    return [nodes[name] for name in sorted(nodes)]


def parse_info(text: str) -> Info:
    """The sections of INFO's answer. Lines that are no field are passed over."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            section = sections.setdefault(line[1:].strip().lower(), {})
        elif ":" in line:
            name, _, value = line.partition(":")
            section[name] = value
    return sections


def peers_of(info: Info) -> list[Peer]:
    """The others, as the node of ``info`` sees them."""
    lines = [
        value for name, value in info.get("peers", {}).items() if name[:4] == "peer" and name[4:].isdecimal()
    ]
    return [_peer(line) for line in lines]


def _peer(line: str) -> Peer:
    head, _, error = line.partition(",error=")
    fields = dict(part.partition("=")[::2] for part in head.split(","))
    return Peer(
        name=fields.get("name", ""),
        door=fields.get("door", ""),
        connected=fields.get("connected") == "1",
        breaker=fields.get("breaker", ""),
        kinship=fields.get("secret", ""),
        error=error,
    )


def _unseen(nodes: Mapping[str, Found]) -> dict[str, str]:
    """Doors by name of those who are told of and have not been asked; the first that says where is believed."""
    told: dict[str, str] = {}
    for found in nodes.values():
        for peer in peers_of(found.info):
            if peer.name not in nodes and len(nodes) + len(told) < MAX_NODES:
                told[peer.name] = told.get(peer.name) or peer.door
    return told


async def _look(door: str, name: str, within_s: float, by: Introduction | None) -> Found:
    if not door:
        return Found(name=name, door="", error="no other node has reached it: where it answers is not known")
    try:
        answer = await ask(door, "INFO", within_s=within_s, by=by)
    except (Unavailable, ValueError) as error:
        return Found(name=name, door=door, error=str(error), denied=_denied(error))
    info = parse_info(answer) if isinstance(answer, str) else {}
    found = info.get("node", {}).get("node_name", "")
    if not found and "snapring_version" in info.get("server", {}):
        return Found(
            name=name,
            door=door,
            error=f"{door} tells that to administrators: show a key of role admin",
            denied=PermissionDenied,
        )
    if not found:
        return Found(name=name, door=door, error=f"{door} is not a node of Snapring")
    if name and found != name:
        return Found(
            name=name, door=door, error=f"{found} answers at {door}: reach it at an address of its own"
        )
    return Found(name=found, door=door, info=info)


def _denied(error: Exception) -> type[PermissionDenied | Unauthenticated] | None:
    refused = error.__cause__.error if isinstance(error.__cause__, Refused) else None
    return type(refused) if isinstance(refused, PermissionDenied | Unauthenticated) else None
