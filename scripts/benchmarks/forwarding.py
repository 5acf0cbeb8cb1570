"""What it costs to ask a node for what another one owns: one of two nodes owns every key.

Throughput is redis-benchmark's with 50 connections, against the owner (all local) and against the other node
(all forwarded) in turn, the same keys in the same two processes. Keys are too many for one to be hot, and nobody is
anybody's backup: that each read counted was forwarded is read off the nodes' counters, else the suite breaks off.
A second figure has few keys, so that the other node keeps copies, as it does wherever some keys are hot. It needs
redis-benchmark (Debian: `apt-get install redis-tools`) on the PATH.
"""

import asyncio
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from os import sysconf
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.benchmarks.several import Counters, Member, rise, several
from scripts.demonstration.resp import Resp

KEYS: Final = 20_000
HOT_KEYS: Final = 500
ROUNDS: Final = 7
REQUESTS: Final = 25_000
CONNECTIONS: Final = 50
CALLS: Final = 1_000

_HOST: Final = "127.0.0.1"
_PAGE: Final = 500
_CACHES: Final[dict[str, dict[str, object]]] = {"item": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """``asked`` forwards what ``owner`` has."""

    asked: Member
    owner: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """GETs per second, the part of them that the owner answered to the other node, and processor time for one GET.

    That is of each node, nan where the system does not tell.
    """

    per_s: float
    forwarded: float
    asked_us: float
    owner_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The same GETs, forwarded and local."""

    far: Rate
    near: Rate


Check = Callable[[Counters, Counters, int], bool]
"""Whether the counters of who was asked and of the owner have risen as so many forwarded GETs make them."""


async def run(rounds: int = ROUNDS, requests: int = REQUESTS, calls: int = CALLS) -> list[dict[str, Any]]:
    """The figures ``forwarded_vs_local``, ``forwarded_with_copies_vs_local`` and ``forwarded_added_p50_ms``."""
    if shutil.which("redis-benchmark") is None:
        raise RuntimeError("redis-benchmark is missing: apt-get install redis-tools")
    async with several(2, rows=KEYS, caches=_CACHES, options=("--owner", "node-1")) as ground:
        pair = Pair(asked=ground.members["node-0"], owner=ground.members["node-1"])
        await _fill(pair.owner)
        added = await _added(pair, rounds, calls)
        every = await _rounds(pair, rounds, requests, KEYS, _all_forwarded)
        some = await _rounds(pair, rounds, requests, HOT_KEYS, _some_forwarded)
    return [
        _throughput("forwarded_vs_local", every, f"{KEYS:,} keys"),
        _throughput("forwarded_with_copies_vs_local", some, f"{HOT_KEYS} keys, hot enough for copies"),
        added,
    ]


async def _fill(owner: Member) -> None:
    """Have the owner load every key."""
    client = await Resp.open(_HOST, owner.port)
    for since in range(0, KEYS, _PAGE):
        page = [b"item:%012d" % number for number in range(since, since + _PAGE)]
        (values,) = await client.ask([(b"MGET", *page)])
        assert isinstance(values, list), f"{values!r}"
        assert all(isinstance(value, bytes) for value in values), "the owner does not load"
    await client.close()


async def _rounds(pair: Pair, rounds: int, requests: int, keys: int, check: Check) -> list[Round]:
    """Alternate between the two, each first as often as second, after one round that does not count."""
    measured = []
    for number in range(rounds + 1):
        far_first = bool(number % 2)
        first = await _rate(pair, requests, keys, check if far_first else _all_local, far=far_first)
        second = await _rate(pair, requests, keys, _all_local if far_first else check, far=not far_first)
        measured.append(Round(far=first, near=second) if far_first else Round(far=second, near=first))
    return measured[1:]


async def _rate(pair: Pair, requests: int, keys: int, check: Check, *, far: bool) -> Rate:
    asked_before, owner_before = await pair.asked.counters(), await pair.owner.counters()
    busy_s = _busy_s(pair.asked), _busy_s(pair.owner)
    per_s = await _redis_benchmark((pair.asked if far else pair.owner).port, requests, keys)
    asked_us, owner_us = (
        (_busy_s(member) - before_s) * 1e6 / requests
        for member, before_s in zip((pair.asked, pair.owner), busy_s, strict=True)
    )
    asked = rise(asked_before, await pair.asked.counters())
    owner = rise(owner_before, await pair.owner.counters())
    if not check(asked, owner, requests):
        raise RuntimeError(f"{requests} GETs were not answered as they were to be: {asked}, {owner}")
    forwarded = asked["owner_answers"] / requests
    return Rate(per_s=per_s, forwarded=forwarded, asked_us=asked_us, owner_us=owner_us)


def _all_forwarded(asked: Counters, owner: Counters, requests: int) -> bool:
    """Each was asked of the owner, which had it in memory."""
    return (
        asked["forwarded"] == asked["owner_answers"] == owner["hits"] == requests
        and asked["hits"] == asked["copies_fetched"] == asked["copies_kept"] == 0
        and _none_loaded(asked, owner)
    )


def _some_forwarded(asked: Counters, owner: Counters, requests: int) -> bool:
    """The owner's answer or a copy of it answered each."""
    return asked["owner_answers"] + asked["hits"] >= requests and _none_loaded(asked, owner)


def _all_local(asked: Counters, owner: Counters, requests: int) -> bool:
    """The owner had them in memory, and nobody else was asked."""
    return owner["hits"] == requests and asked["forwarded"] == 0 and _none_loaded(asked, owner)


def _none_loaded(asked: Counters, owner: Counters) -> bool:
    return asked["loads"] == owner["loads"] == owner["forwarded"] == 0


async def _redis_benchmark(port: int, requests: int, keys: int) -> float:
    """Requests per second, as redis-benchmark saw them."""
    options = ("-c", str(CONNECTIONS), "-n", str(requests), "-r", str(keys), "--csv", "-e")
    process = await asyncio.create_subprocess_exec(
        *("redis-benchmark", "-h", _HOST, "-p", str(port), *options, "GET", "item:__rand_int__"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    answer, complaint = await process.communicate()
    try:
        return float(answer.decode().strip().splitlines()[-1].split(",")[1].strip('"'))
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"redis-benchmark said {answer!r} {complaint!r}") from error


async def _added(pair: Pair, rounds: int, calls: int) -> dict[str, Any]:
    """What one caller waits longer for the other node than for the owner, as the median of medians."""
    before = await pair.asked.counters()
    waits = []
    for number in range(rounds + 1):
        keys = [b"item:%012d" % (each % KEYS) for each in range(number * calls, (number + 1) * calls)]
        far_ms = await asyncio.to_thread(_p50_ms, pair.asked.port, keys)
        waits.append((far_ms, await asyncio.to_thread(_p50_ms, pair.owner.port, keys)))
    asked = rise(before, await pair.asked.counters())
    if asked["owner_answers"] != (rounds + 1) * calls or asked["hits"]:
        raise RuntimeError(f"{(rounds + 1) * calls} GETs were not all forwarded: {asked}")
    return {
        "figure": "forwarded_added_p50_ms",
        "value": round(median(far - near for far, near in waits[1:]), 3),
        "at_most": 1.5,
        "aim": 0.5,
        "detail": f"p50 {median(far for far, _ in waits[1:]):.3f} ms forwarded, "
        f"{median(near for _, near in waits[1:]):.3f} ms local; one caller, median of {rounds} rounds of {calls} GETs",
    }


def _p50_ms(port: int, keys: list[bytes]) -> float:
    """How long a GET takes, one after the other on one connection."""
    took_s = []
    with socket.create_connection((_HOST, port)) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for key in keys:
            command = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)
            sent_s = time.perf_counter()
            caller.sendall(command)
            answer = caller.recv(4096)
            took_s.append(time.perf_counter() - sent_s)
            if not (answer.startswith(b"$") and answer.endswith(b"\r\n")):
                raise RuntimeError(f"{key!r} was answered {answer!r}")
    return median(took_s) * 1e3


def _throughput(figure: str, rounds: list[Round], what: str) -> dict[str, Any]:
    ratios = sorted(each.far.per_s / each.near.per_s for each in rounds)
    return {
        "figure": figure,
        "value": round(median(ratios), 3),
        "at_least": 0.5,
        "aim": 0.8,
        "detail": {
            "forwarded_per_s": round(median(each.far.per_s for each in rounds)),
            "local_per_s": round(median(each.near.per_s for each in rounds)),
            "us_per_forwarded_get_of_the_asked": round(median(each.far.asked_us for each in rounds), 1),
            "of_the_owner": round(median(each.far.owner_us for each in rounds), 1),
            "us_per_local_get": round(median(each.near.owner_us for each in rounds), 1),
            "forwarded": f"{median(each.far.forwarded for each in rounds):.1%}",
            "ratios": [round(ratio, 3) for ratio in ratios],
            "of": what,
        },
    }


def _busy_s(member: Member) -> float:
    """Processor time of all its threads until now; nan where the system has no /proc."""
    with suppress(OSError):
        fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / sysconf("SC_CLK_TCK")
    return nan
