"""The demonstration: PostgreSQL under a foreign writer, nodes beside it, and every reply checked."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psycopg

from cluster.embedded import EmbeddedUnavailable
from cluster.ending import when_told
from scripts.demonstration.performance import Options, perform
from scripts.demonstration.programs import ProgramFailed
from scripts.demonstration.screen import report, say, screen
from scripts.demonstration.stage import StageTaken, stage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 0 when replies were checked and none was wrong, 1 when not, 2 when it could not run."""
    parsed = _parser().parse_args(arguments)
    options = Options(
        seconds=parsed.seconds,
        nodes=parsed.nodes,
        scale=parsed.scale,
        rate_tps=parsed.rate,
        readers=parsed.readers,
        depth=parsed.depth,
        seed=parsed.seed,
    )
    try:
        summary = asyncio.run(_demonstrate(parsed.database, options))
    except (EmbeddedUnavailable, ProgramFailed, StageTaken, psycopg.OperationalError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("demo: interrupted", file=sys.stderr)
        return 130
    report(summary)
    if parsed.json:
        parsed.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if summary["replies"] and not summary["wrong"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Reads through Snapring nodes while pgbench writes straight to PostgreSQL, and compares "
        "every reply with what the database held at the snapshot that the reply names.",
    )
    parser.add_argument("--seconds", type=_positive, default=30.0, metavar="N", help="how long (default 30)")
    parser.add_argument(
        "--nodes",
        type=int,
        choices=range(1, 10),
        default=3,
        metavar="N",
        help="nodes that act as one, 1 to 9 (default 3)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument(
        "--database", metavar="URL", help="use this database, as its owner, instead of an embedded one"
    )
    parser.add_argument(
        "--scale", type=int, choices=range(1, 11), default=1, help="pgbench's scale (default 1)"
    )
    parser.add_argument(
        "--rate", type=int, default=200, metavar="TPS", help="the writers' rate; 0 for no limit (default 200)"
    )
    parser.add_argument(
        "--readers", type=int, default=6, metavar="N", help="connections that read (default 6)"
    )
    parser.add_argument(
        "--depth", type=int, default=32, metavar="N", help="reads in flight on each (default 32)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the readers' choices (default 1)"
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


async def _demonstrate(database: str | None, options: Options) -> dict[str, object]:
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside, it still stops what it started and removes what it made.
    when_told(task.cancel)
    say("starting PostgreSQL, filling it with pgbench, putting its tables under capture")
    async with stage(database, scale=options.scale) as ready:
        async with await psycopg.AsyncConnection.connect(ready.url) as connection:
            postgres = connection.info.server_version // 10_000
        say(
            f"PostgreSQL {postgres}; starting {_counted(options.nodes)}, pgbench's writers and {options.readers} readers"
        )
        with screen() as shown:
            summary = await perform(ready, options, shown)
    return {**summary, "postgres": postgres, "snapring": version("snapring-node"), "cpus": os.cpu_count()}


def _counted(nodes: int) -> str:
    return "a node" if nodes == 1 else f"{nodes} nodes that act as one"


if __name__ == "__main__":
    raise SystemExit(main())
