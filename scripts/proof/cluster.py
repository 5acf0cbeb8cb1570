"""What the nodes under proof say of themselves and of each other, through INFO."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Final

from cluster.asking import ask
from cluster.survey import Info, parse_info
from scripts.proof.hops import FIELD, SECTION
from scripts.proof.nodes import NodeProcess
from scripts.proof.proxy import HOST
from snapring.errors import Unavailable

_ASK_S: Final = 2.0
_AGAIN_S: Final = 0.1
_LOOK_S: Final = 0.02
_PERIOD_S: Final = 0.5


class TwoHops(RuntimeError):
    """A node asked another one what a peer had asked it."""


class Disagreement(RuntimeError):
    """The nodes did not come to have one ring."""


async def told(node: NodeProcess) -> Info:
    """What ``node`` says of itself; nothing while it does not answer."""
    try:
        answer = await ask(f"{HOST}:{node.port}", "INFO", within_s=_ASK_S)
    except (Unavailable, ValueError):
        return {}
    return parse_info(answer) if isinstance(answer, str) else {}


async def surveyed(nodes: Iterable[NodeProcess]) -> Mapping[str, Info]:
    """What each of ``nodes`` that answers says, by its name."""
    asked = tuple(nodes)
    found = await asyncio.gather(*map(told, asked))
    return {node.name: info for node, info in zip(asked, found, strict=True) if info}


async def following(node: NodeProcess, within_s: float) -> bool:
    """Whether ``node`` has begun to follow the database ``within_s``: until then it is not ready for clients."""
    deadline_s = monotonic() + within_s
    while monotonic() < deadline_s:
        if (await told(node)).get("feed", {}).get("watermark"):
            return True
        await asyncio.sleep(_LOOK_S)
    return False


async def agreed(nodes: Sequence[NodeProcess], within_s: float = 30.0) -> float:
    """Wait until all ``nodes`` have one ring, which is theirs; how long that took. Raises `Disagreement`."""
    began_s = monotonic()
    while True:
        found = await surveyed(nodes)
        if len(found) == len(nodes) and len(rings(found)) == 1 and _shared(found):
            return monotonic() - began_s
        if monotonic() - began_s > within_s:
            raise Disagreement(f"no one ring of {', '.join(node.name for node in nodes)}: {rings(found)}")
        await asyncio.sleep(_AGAIN_S)


def rings(found: Mapping[str, Info]) -> Mapping[str, list[str]]:
    """Who has which ring."""
    having: dict[str, list[str]] = {}
    for name, info in found.items():
        having.setdefault(info.get("peers", {}).get("epoch", ""), []).append(name)
    return having


def number(info: Info, section: str, name: str) -> int:
    """One of the counters of a node; 0 where it has none."""
    return int(info.get(section, {}).get(name, 0))


class Survey:
    """The counters of ``nodes`` in all their lives, as far as they were seen; for one event loop."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._nodes = nodes
        self._last: dict[tuple[str, str], Info] = {}

    async def run(self) -> None:
        """Look again and again. Raises `TwoHops`."""
        while True:
            await self.look()
            await asyncio.sleep(_PERIOD_S)

    async def look(self) -> None:
        """Once. Raises `TwoHops`."""
        for name, info in (await surveyed(self._nodes)).items():
            self._last[name, info.get("server", {}).get("process_id", "")] = info
            if hops := number(info, SECTION, FIELD):
                raise TwoHops(f"{name} has asked others {hops} times what a peer had asked it")

    def total(self, section: str, name: str) -> int:
        """A counter, of all lives together."""
        return sum(number(info, section, name) for info in self._last.values())


def _shared(found: Mapping[str, Info]) -> bool:
    """Whether each reaches all the others, and they are its whole ring."""
    return all(
        number(info, "peers", "agreeing") == len(found) == len(_owners(info)) for info in found.values()
    )


def _owners(info: Info) -> list[str]:
    """The shares of the ring that are any, a node's own and its peers'."""
    peers = info.get("peers", {})
    told = [
        dict(part.partition("=")[::2] for part in text.split(",")) for text in peers.values() if "," in text
    ]
    shares = [peers.get("share", "0"), *(fields.get("share", "0") for fields in told)]
    return [share for share in shares if float(share) > 0]
