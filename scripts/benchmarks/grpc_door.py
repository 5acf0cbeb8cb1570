"""Get hits of the gRPC door against a bare grpc.aio server of the same messages, in turn, in one run; and GetMany
against MGET of the RESP door of the same node, through redis-py.

Servers run on one processor and their clients, which cost about as much, on another: so what a server takes of its
processor for a call is shown as well.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from random import Random
from statistics import median
from time import perf_counter
from typing import Any, Final

import grpc
import grpc.aio
import redis

from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from scripts.benchmarks.hits import ENTRIES, VALUE_BYTES

ROUNDS: Final = 10
_CALLS: Final = 3000
_CALLERS: Final = 32
_CHANNELS: Final = 4
_MANY: Final = 100
_BATCHES: Final = 150
_START_S: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


async def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """The figures."""
    with _pinned():
        async with _server("--entries", str(ENTRIES), "--value-bytes", str(VALUE_BYTES)) as (
            node,
            grpc_port,
            resp_port,
        ):
            reply = await _one(grpc_port)
            async with _server("--echo", reply.hex()) as (echo, echo_port):
                gets = await _gets((node, grpc_port), (echo, echo_port), rounds)
            return [gets, await asyncio.to_thread(_many, grpc_port, resp_port, rounds)]


async def _gets(ours: tuple[int, int], theirs: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Alternate between the two, each first as often as second, after one round that does not count."""
    rates: dict[tuple[int, int], list[float]] = {ours: [], theirs: []}
    cpu_us: dict[tuple[int, int], list[float]] = {ours: [], theirs: []}
    for number in range(rounds + 1):
        for server in (ours, theirs) if number % 2 else (theirs, ours):
            rate, cost_us = await _rate(*server)
            if number > 0:
                rates[server].append(rate)
                cpu_us[server].append(cost_us)
    ratios = [mine / bare for mine, bare in zip(rates[ours], rates[theirs], strict=True)]
    return {
        "figure": "grpc_vs_echo",
        "value": round(median(ratios), 3),
        "at_least": 0.8,
        "aim": 0.95,
        "detail": {
            "door_per_s": round(median(rates[ours])),
            "echo_per_s": round(median(rates[theirs])),
            "door_cpu_us": round(median(cpu_us[ours]), 1),
            "echo_cpu_us": round(median(cpu_us[theirs]), 1),
            "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
            "callers": _CALLERS,
        },
    }


async def _rate(pid: int, port: int) -> tuple[float, float]:
    """Calls per second as the callers saw them, and microseconds of the server's processor for one."""
    random = Random(1)
    requests = [v1.GetRequest(key=_key(random)).SerializeToString() for _ in range(_CALLS)]
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_channel(port, number)) for number in range(_CHANNELS)]
        gets = [channel.unary_unary("/snapring.v1.Snapring/Get") for channel in channels]
        await asyncio.gather(*(get(requests[0]) for get in gets))
        waiting = iter(requests)

        async def call(get: Any) -> None:
            for request in waiting:
                await get(request)

        used, began_s = _cpu_s(pid), perf_counter()
        await asyncio.gather(*(call(gets[number % _CHANNELS]) for number in range(_CALLERS)))
        took_s = perf_counter() - began_s
        return _CALLS / took_s, (_cpu_s(pid) - used) / _CALLS * 1e6


def _many(grpc_port: int, resp_port: int, rounds: int) -> dict[str, Any]:
    """Keys per second, `_MANY` at once, one caller of each kind in turn."""
    random = Random(2)
    batches = [[_key(random) for _ in range(_MANY)] for _ in range(_BATCHES)]
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel, redis.Redis(port=resp_port) as client:
        get_many = channel.unary_unary(
            "/snapring.v1.Snapring/GetMany",
            request_serializer=v1.GetManyRequest.SerializeToString,
            response_deserializer=v1.GetManyReply.FromString,
        )

        def by_grpc(keys: Sequence[str]) -> list[bytes]:
            return [reply.value for reply in get_many(v1.GetManyRequest(keys=keys)).replies]

        grpc_rates, resp_rates = [], []
        for _ in range(rounds):
            grpc_rates.append(_keys_per_s(by_grpc, batches))
            resp_rates.append(_keys_per_s(client.mget, batches))
    ratios = [ours / theirs for ours, theirs in zip(grpc_rates, resp_rates, strict=True)]
    return {
        "figure": "grpc_many_vs_mget",
        "value": round(median(ratios), 3),
        "at_least": 0.0,
        "aim": 0.0,
        "detail": {
            "grpc_keys_per_s": round(median(grpc_rates)),
            "mget_keys_per_s": round(median(resp_rates)),
            "keys_at_once": _MANY,
        },
    }


def _keys_per_s(ask: Callable[[Sequence[str]], Any], batches: Sequence[Sequence[str]]) -> float:
    began_s = perf_counter()
    for batch in batches:
        assert len(ask(batch)) == _MANY, "each key has an answer"
    return len(batches) * _MANY / (perf_counter() - began_s)


async def _one(port: int) -> bytes:
    async with _channel(port, 0) as channel:
        reply: bytes = await channel.unary_unary("/snapring.v1.Snapring/Get")(
            v1.GetRequest(key=_key(Random(0))).SerializeToString()
        )
    return reply


def _channel(port: int, number: int) -> grpc.aio.Channel:
    """A connection of its own for each ``number``."""
    options = [("grpc.use_local_subchannel_pool", 1), ("snapring.number", number)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


def _key(random: Random) -> str:
    return f"user_by_id:{random.randrange(ENTRIES):012d}"


def _cpu_s(pid: int) -> float:
    """What the process has taken of its processor so far; nothing where the system does not say."""
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
        user, system = stat.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS
    return 0.0


@asynccontextmanager
async def _server(*words: str) -> "AsyncIterator[tuple[int, ...]]":
    """Its process id and ports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "scripts.benchmarks.grpc_server", *words, stdout=asyncio.subprocess.PIPE
    )
    _pin(process.pid, first=True)
    try:
        assert process.stdout is not None
        lines = range(1 if "--echo" in words else 2)
        ports = [int(await asyncio.wait_for(process.stdout.readline(), _START_S)) for _ in lines]
        yield process.pid, *ports
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextmanager
def _pinned() -> Iterator[None]:
    """Keep this process to the last processor for now."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    _pin(0, first=False)
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def _pin(pid: int, *, first: bool) -> None:
    if hasattr(os, "sched_setaffinity"):
        processors = range(os.cpu_count() or 1)
        with suppress(OSError):
            os.sched_setaffinity(pid, {processors[0 if first else -1]})
