"""A key that is in nobody's memory, asked for a thousand times at once through three nodes: how many loads.

Its query takes a while, so that the questions are there before the first answer, but less than `peers.hop_timeout`
and the cache's ``max_staleness``: after either, whoever has asked the owner loads for itself.
"""

import asyncio
from itertools import cycle, islice
from typing import Any, Final

from scripts.benchmarks.several import Several, several
from scripts.demonstration.resp import Resp

QUESTIONS: Final = 1_000
CALLERS: Final = 300
ROUNDS: Final = 10
NODES: Final = 3

_HOST: Final = "127.0.0.1"
_ROWS: Final = 1_000
_SLOW: Final = "SELECT a.id, count(*) AS n FROM items a, items b, items c WHERE a.id = $1 GROUP BY a.id"
_PATIENT: Final = ("--peers.hop_timeout=5s",)
_CACHES: Final[dict[str, dict[str, object]]] = {"slow": {"sql": _SLOW, "max_staleness": "5s"}}


async def run(rounds: int = ROUNDS, nodes: int = NODES) -> list[dict[str, Any]]:
    """The figure ``stampede_loads``."""
    async with several(nodes, rows=_ROWS, caches=_CACHES, options=_PATIENT) as ground:
        ports = islice(cycle(member.port for member in ground.members.values()), CALLERS)
        clients = await asyncio.gather(*(Resp.open(_HOST, port) for port in ports))
        loads = [await _round(ground, clients, b"slow:%d" % number) for number in range(rounds)]
        answered = await ground.total("flights_joined")
        await asyncio.gather(*(client.close() for client in clients))
    return [
        {
            "figure": "stampede_loads",
            "value": max(loads),
            "at_most": 1,
            "aim": 1,
            "detail": f"the most for one key asked {QUESTIONS:,} times at once over {CALLERS} connections to {nodes} nodes, of "
            f"{rounds} keys; {answered:,} of {rounds * QUESTIONS:,} questions joined a load that was under way",
        }
    ]


async def _round(ground: Several, clients: list[Resp], key: bytes) -> int:
    """How many loads ``key`` takes. Raises if one question has no answer, or two differ."""
    before = await ground.total("loads")
    shares = [len(range(number, QUESTIONS, len(clients))) for number in range(len(clients))]
    asked = zip(clients, shares, strict=True)
    replies = await asyncio.gather(*(client.ask([(b"GET", key)] * share) for client, share in asked))
    answers = [reply for each in replies for reply in each]
    if len(answers) != QUESTIONS or any(answer != answers[0] for answer in answers):
        raise RuntimeError(f"{key!r} was answered {set(map(repr, answers))}")
    if not isinstance(answers[0], bytes):
        raise TypeError(f"{key!r} was answered {answers[0]!r}")
    return await ground.total("loads") - before
