"""What three nodes answer in all when nine reads in ten are of one key, against reads spread evenly over all keys.

The callers are one process, whose own work for a read is the same either way. The two kinds of reads take turns, on
the same connections to the same nodes; every key is in its owner's memory, and at its backup.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle
from random import Random
from statistics import median
from typing import Any, Final, cast

import hiredis
import uvloop

from scripts.benchmarks.several import Several, several

KEYS: Final = 20_000
ROUNDS: Final = 7
ROUND_S: Final = 2.0
CALLERS: Final = 48
HOT: Final = 0.9

_HOST: Final = "127.0.0.1"
_DRAWN: Final = 20_000
_END_S: Final = 10.0
_CACHES: Final[dict[str, dict[str, object]]] = {"item": {}}


def run(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[dict[str, Any]]:
    """The figure ``hot_vs_uniform``."""
    return uvloop.run(_measure(rounds, round_s))


async def _measure(rounds: int, round_s: float) -> list[dict[str, Any]]:
    rng = Random(0)
    uniform = [rng.randrange(KEYS) for _ in range(_DRAWN)]
    hot = [0 if rng.random() < HOT else item for item in uniform]
    async with several(3, rows=KEYS, caches=_CACHES) as ground:
        await ground.fill()
        callers = await _callers(ground)
        rates: dict[str, list[float]] = {"hot": [], "uniform": []}
        forwarded = dict.fromkeys(rates, 0)
        for number in range(rounds + 1):
            for kind, items in (("hot", hot), ("uniform", uniform))[:: 1 if number % 2 else -1]:
                before = await ground.total("forwarded")
                rates[kind].append(await _rate(callers, items, round_s))
                forwarded[kind] += await ground.total("forwarded") - before
        for caller in callers:
            caller.close()
    answered = {kind: sum(each) * round_s for kind, each in rates.items()}
    shares = {kind: f"{forwarded[kind] / answered[kind]:.1%}" for kind in rates}
    return [_figure(rates["hot"][1:], rates["uniform"][1:], shares)]


def _figure(hot: Sequence[float], uniform: Sequence[float], shares: dict[str, str]) -> dict[str, Any]:
    ratios = sorted(one / other for one, other in zip(hot, uniform, strict=True))
    return {
        "figure": "hot_vs_uniform",
        "value": round(median(ratios), 3),
        "at_least": 0.9,
        "aim": 1.0,
        "detail": {
            "hot_per_s": round(median(hot)),
            "uniform_per_s": round(median(uniform)),
            "hot_forwarded": shares["hot"],
            "uniform_forwarded": shares["uniform"],
            "ratios": [round(ratio, 3) for ratio in ratios],
            "callers": CALLERS,
        },
    }


class _Caller(asyncio.Protocol):
    """One connection, which asks for its next item when it has its answer, while ``asking``."""

    def __init__(self) -> None:
        self.answers = 0
        self.asking = False
        self.idle = asyncio.Event()
        self.failure: object = None
        self._parser = hiredis.Reader()
        self._commands = cycle([b""])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._parser.feed(data)
        reply = self._parser.gets()
        if reply is False:
            return
        self.answers += 1
        if not isinstance(reply, bytes):
            self.failure = reply
        elif self.asking:
            self._transport.write(next(self._commands))
            return
        self.idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.failure = self.failure or exc or "the node hung up"
        self.idle.set()

    def begin(self, commands: Sequence[bytes]) -> None:
        """Ask on and on."""
        self.answers, self.asking, self._commands = 0, True, cycle(commands)
        self.idle.clear()
        self._transport.write(next(self._commands))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


async def _callers(ground: Several) -> list[_Caller]:
    """Connections to all nodes in turn."""
    loop = asyncio.get_running_loop()
    ports = cycle(member.port for member in ground.members.values())
    opening = (
        loop.create_connection(_Caller, _HOST, port) for _, port in zip(range(CALLERS), ports, strict=False)
    )
    return [caller for _, caller in await asyncio.gather(*opening)]


async def _rate(callers: Sequence[_Caller], items: Sequence[int], seconds: float) -> float:
    """Answers per second. Raises if one is none."""
    commands = [_command(b"item:%d" % item) for item in items]
    began_s = time.perf_counter()
    for number, caller in enumerate(callers):
        begin = number * len(commands) // len(callers)
        caller.begin(commands[begin:] + commands[:begin])
    await asyncio.sleep(seconds)
    took_s, answers = time.perf_counter() - began_s, sum(caller.answers for caller in callers)
    for caller in callers:
        caller.asking = False
    async with asyncio.timeout(_END_S):
        await asyncio.gather(*(caller.idle.wait() for caller in callers))
    failures = [caller.failure for caller in callers if caller.failure is not None]
    if failures:
        raise RuntimeError(f"{len(failures)} callers were not answered: {failures[0]!r}")
    return answers / took_s


def _command(key: bytes) -> bytes:
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)
