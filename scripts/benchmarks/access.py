"""What it costs to ask for keys and to encrypt, and what one tenant's flood does to another.

Doors in front of the same entries, without credentials, with them, and under TLS besides, asked in turn by
redis-benchmark. Then one door with two tenants, one of which floods it, within its quota, with pipelines without any, and
with logins: how long the other waits. The flood and who waits share a processor here, as they would not elsewhere: so the flood runs at a
lower priority, and what is measured is the node. It needs redis-benchmark (Debian: `apt-get install redis-tools`) on
the PATH.
"""

import asyncio
import os
import secrets
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from cluster.access.secret import digest, mint, show_digest
from scripts.benchmarks.hits import KEY, VALUE_BYTES, door_running, pin, rate

ROUNDS: Final = 9
TURNS: Final = 5
ASKED: Final = ("-c", "50", "-n", "50000")
FLOOD_PER_S: Final = 5_000
CONNECTIONS: Final = 50
PIPELINE: Final = 16
NICE: Final = 10
PACE_S: Final = 0.002
TURN_S: Final = 2.0
_HOST: Final = "127.0.0.1"


async def run(rounds: int = ROUNDS, turns: int = TURNS) -> list[dict[str, Any]]:
    """The figures; 0 where redis-benchmark is missing."""
    if shutil.which("redis-benchmark") is None:
        missing = {"not measured": "redis-benchmark (apt-get install redis-tools)"}
        return [_cost("auth_cost", 0.0, 0.95, missing), _isolation("tenant_isolation", float("inf"), missing)]
    with TemporaryDirectory(prefix="snapring-bench-") as folder:
        ground = _Ground(Path(folder))
        return [
            *await _costs(ground, rounds),
            await _flooded(ground, turns, "tenant_isolation", f"flood:{FLOOD_PER_S}", 1),
            await _flooded(ground, turns, "tenant_isolation_without_quota", "flood", PIPELINE),
            await _flooded(ground, turns, "tenant_isolation_of_logins", "flood", 0),
        ]


class _Ground:
    """Keys of two tenants, and a certificate, in files of ``folder``."""

    def __init__(self, folder: Path) -> None:
        import trustme  # noqa: PLC0415 -- the other suites do without

        self.keys = {name: mint(name, secrets.token_bytes) for name in ("calm", "flood")}
        self._keys_file = folder / "keys"
        self._keys_file.write_text(
            "".join(
                f'{name} = {{ tenant = "{name}", role = "read", hashes = ["{show_digest(digest(key.encode()))}"] }}\n'
                for name, key in self.keys.items()
            )
        )
        authority = trustme.CA()
        issued = authority.issue_cert(_HOST)
        self.ca, self._cert, self._key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(self.ca))
        issued.cert_chain_pems[0].write_to_path(str(self._cert))
        issued.private_key_pem.write_to_path(str(self._key))

    def guarded(self, *tenants: str) -> tuple[str, ...]:
        """A server's options for keys."""
        named = (word for tenant in tenants for word in ("--tenant", tenant))
        return ("--keys-file", str(self._keys_file), *named)

    @property
    def encrypted(self) -> tuple[str, ...]:
        """A server's options for TLS."""
        return ("--cert-file", str(self._cert), "--key-file", str(self._key))


async def _costs(ground: _Ground, rounds: int) -> list[dict[str, Any]]:
    """Rates of the guarded doors against the open one's, in turn, after one round that does not count."""
    shown = ("-a", ground.keys["calm"])
    async with AsyncExitStack() as stack:
        asking = {
            "off": (await stack.enter_async_context(door_running()), ASKED),
            "auth": (
                await stack.enter_async_context(door_running(*ground.guarded("calm"))),
                (*ASKED, *shown),
            ),
            "tls": (
                await stack.enter_async_context(door_running(*ground.guarded("calm"), *ground.encrypted)),
                (*ASKED, *shown, "--tls", "--cacert", str(ground.ca)),
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in asking}
        for number in range(rounds + 1):
            for name in asking if number % 2 else reversed(asking):
                found = await rate(*asking[name])
                if number:
                    rates[name].append(found)
    detail = {f"{name}_per_s": round(median(found)) for name, found in rates.items()}
    return [
        _cost("auth_cost", _ratio(rates["auth"], rates["off"]), 0.95, detail),
        _cost("auth_and_tls_cost", _ratio(rates["tls"], rates["off"]), 0.0, detail),
    ]


async def _flooded(ground: _Ground, turns: int, figure: str, tenant: str, pipeline: int) -> dict[str, Any]:
    """The calm tenant's p99 beside the other's flood, against its p99 alone, in turn on one door."""
    alone, beside, floods, reports = [], [], [], []
    options = ground.guarded("calm", tenant)
    async with door_running(*options) as port:
        await _p99_s(port, ground.keys["calm"])
        for _ in range(turns):
            alone.append(await _p99_s(port, ground.keys["calm"]))
            async with _flood(port, ground.keys["flood"], pipeline) as report:
                reports.append(report[-1])
                beside.append(await _p99_s(port, ground.keys["calm"]))
            floods.append(beside[-1] / alone[-1])
    detail = {
        "p99_alone_ms": round(median(alone) * 1000, 3),
        "p99_beside_ms": round(median(beside) * 1000, 3),
        "ratios": [round(each, 2) for each in sorted(floods)],
        "answered_and_refused_per_s": reports,
        "flood": f"{tenant}: {CONNECTIONS} connections of {pipeline or 'no'} GETs at once, as fast as they are answered",
    }
    return _isolation(figure, round(median(floods), 3), detail)


@asynccontextmanager
async def _flood(port: int, key: str, pipeline: int) -> AsyncIterator[list[str]]:
    """A flood, once it has lasted for a second; its reports so far."""
    module = (sys.executable, "-P", "-m", "scripts.benchmarks.flooder")
    options = ("--port", str(port), "--connections", str(CONNECTIONS), "--pipeline", str(pipeline))
    process = await asyncio.create_subprocess_exec(
        *module, *options, stdout=PIPE, env={**os.environ, "SNAPRING_BENCH_KEY": key, "PYTHONPATH": "."}
    )
    pin(process.pid, last=True)
    os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    assert process.stdout is not None
    try:
        yield [(await process.stdout.readline()).decode().strip() for _ in range(2)]
        assert process.returncode is None, "the flood has run dry"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _p99_s(port: int, key: str) -> float:
    """How long 99 of 100 of a calm tenant's requests take at most."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    writer.write(b"AUTH %b\r\n" % key.encode())
    assert await reader.readline() == b"+OK\r\n", "the key is not valid"
    asked = KEY.replace("__rand_int__", "000000000000").encode()
    request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(asked), asked)
    took_s = []
    until_s = perf_counter() + TURN_S
    while perf_counter() < until_s:
        began_s = perf_counter()
        writer.write(request)
        answer = await reader.readexactly(len(b"$%d\r\n" % VALUE_BYTES) + VALUE_BYTES + 2)
        took_s.append(perf_counter() - began_s)
        assert answer.startswith(b"$%d\r\n" % VALUE_BYTES), "no hit"
        await asyncio.sleep(PACE_S)
    writer.close()
    return sorted(took_s)[int(len(took_s) * 0.99)]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(median(one / other for one, other in zip(ours, theirs, strict=True)), 3)


def _cost(name: str, value: float, at_least: float, detail: dict[str, Any]) -> dict[str, Any]:
    return {"figure": name, "value": value, "at_least": at_least, "aim": max(at_least, 0.5), "detail": detail}


def _isolation(figure: str, value: float, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "figure": figure,
        "value": value,
        "at_most": 4.0 if "logins" in figure else 2.0,
        "aim": 1.2,
        "detail": detail,
    }
