"""The run itself: writers, readers, judge and screen side by side for a number of seconds."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.tokens import TokenCodec
from scripts.demonstration.checker import Checker
from scripts.demonstration.history import History
from scripts.demonstration.judge import Judge
from scripts.demonstration.node_info import ClusterInfo, NodeInfo
from scripts.demonstration.programs import ProgramFailed, last_words, running
from scripts.demonstration.readers import Reader
from scripts.demonstration.screen import Frame, Screen
from scripts.demonstration.stage import HOST, Stage, cluster
from scripts.demonstration.tally import Tally, summary
from scripts.demonstration.workload import Reads

_FAREWELL_S: Final = 10.0
_WRITERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for. ``rate_tps`` 0: writers as fast as they can."""

    seconds: float
    nodes: int
    scale: int
    rate_tps: int
    readers: int
    depth: int
    seed: int


async def perform(ready: Stage, options: Options, screen: Screen) -> dict[str, object]:
    """One run on a set stage; its summary. Raises `ProgramFailed` if a program ends before its time."""
    history = await History.open(ready.url)
    async with contextlib.aclosing(history), cluster(ready, options.nodes) as nodes:
        truth = await history.beginning()
        codec, incarnation = TokenCodec([ready.secret.encode()]), await history.incarnation()
        checker = Checker(truth, codec, incarnation, scale=options.scale, timed=history.timed)
        tally = Tally()
        info = ClusterInfo([NodeInfo(each.node.name, HOST, each.node.port) for each in nodes])
        judge = Judge(history, truth, checker, tally)
        async with _writers(ready, options) as writers:
            began_s = time.monotonic()
            await _side_by_side(
                options.seconds,
                [_reader(options, number, judge, tally) for number in range(options.readers)],
                [each.node.port for each in nodes],
                [
                    judge.run(),
                    *(each.follow() for each in info.nodes),
                    _watch(screen, options, tally, judge, info),
                    *(_outlive(each.process, each.node.name, ready.node_log) for each in nodes),
                    _outlive(writers, "pgbench", ready.writers_log),
                ],
            )
            seconds = time.monotonic() - began_s
        await judge.judge_batch()
        await info.refresh()
    return summary(
        tally,
        seconds=seconds,
        timed=history.timed,
        database_reads=info.total("loads"),
        transactions=truth.transactions,
        more={
            "scale": options.scale,
            "polls": info.total("polls"),
            "hit_ratio": round(info.hit_ratio, 4),
            "nodes": info.rows(),
        },
    )


def _reader(options: Options, number: int, judge: Judge, tally: Tally) -> Reader:
    reads = Reads(options.scale, seed=options.seed + number)
    return Reader(reads, judge.unjudged, tally, depth=options.depth)


@contextlib.asynccontextmanager
async def _writers(ready: Stage, options: Options) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [str(ready.pgbench), "--no-vacuum", f"--client={_WRITERS}", "--jobs=1"]
    command += [f"--time={int(options.seconds) + 3600}"]  # it is ended long before
    command += [f"--rate={options.rate_tps}"] if options.rate_tps else []
    async with running(*command, ready.url, log_file=ready.writers_log) as process:
        yield process


async def _side_by_side(
    seconds: float,
    readers: Sequence[Reader],
    ports: Sequence[int],
    companions: Sequence[Coroutine[Any, Any, None]],
) -> None:
    """Run all for ``seconds``, or until one fails; readers over all ``ports``.

    Readers then finish their round; all of it is judged.
    """
    beside = [asyncio.create_task(companion) for companion in companions]
    reading = [
        asyncio.create_task(reader.run(HOST, ports[number % len(ports)]))
        for number, reader in enumerate(readers)
    ]
    try:
        failed, _ = await asyncio.wait(
            [*beside, *reading], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in failed:
            task.result()
        for reader in readers:
            reader.stop()
        async with asyncio.timeout(_FAREWELL_S):
            await asyncio.gather(*reading)
    except TimeoutError:
        raise ProgramFailed("a node owes replies and does not send them") from None
    finally:
        for task in (*reading, *beside):
            task.cancel()
        await asyncio.gather(*reading, *beside, return_exceptions=True)


async def _watch(screen: Screen, options: Options, tally: Tally, judge: Judge, info: ClusterInfo) -> None:
    began_s = before_s = time.monotonic()
    reads = transactions = 0
    while True:
        await asyncio.sleep(screen.period_s)
        now_s = time.monotonic()
        passed_s, before_s = now_s - before_s, now_s
        screen.show(
            Frame(
                elapsed_s=now_s - began_s,
                total_s=options.seconds,
                reads_per_s=(tally.reads - reads) / passed_s,
                writers_tps=(judge.truth.transactions - transactions) / passed_s,
                hit_ratio=info.hit_ratio,
                reads=tally.reads,
                database_reads=info.total("loads"),
                staleness_p50_ms=tally.staleness.at(0.5) * 1e3,
                staleness_p99_ms=tally.staleness.at(0.99) * 1e3,
                checked=tally.checked,
                waiting=len(judge.unjudged),
                wrong=tally.wrong,
                errors=tally.errors.total(),
                breaker=info.breaker,
                watermark_age_ms=info.worst("watermark_age_s") * 1e3,
                nodes=info.rows(),
            )
        )
        reads, transactions = tally.reads, judge.truth.transactions


async def _outlive(process: asyncio.subprocess.Process, name: str, log_file: Path) -> None:
    status = await process.wait()
    raise ProgramFailed(f"{name} ended before its time with status {status}:\n{last_words(log_file)}")
