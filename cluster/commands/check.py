"""``snapring check``: what would break exactness, in the database and in the caches' SQL."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Final

from cluster import check
from cluster.analysis.catalog import analyse
from cluster.capture import VERSION, installed_version
from cluster.check import Finding
from cluster.commands.database import Connection, with_database
from cluster.commands.outcomes import FOUND, OK
from cluster.commands.run import Run, print_json, print_line, print_table
from cluster.config import NodeConfig
from snapring.errors import CacheRefused

_COMMAND_AT_THE_END: Final = re.compile(r"(.*): (snapring [a-z].*)", re.DOTALL)


def run(run: Run) -> int:
    """Print the findings; the exit code is 1 if one of them is an error."""

    async def work(connection: Connection, config: NodeConfig) -> int:
        findings = await check.check(connection, run.arguments.role)
        if await installed_version(connection) == VERSION:
            findings += [refusal async for refusal in refusals(connection, config)]
        _report(run, findings)
        return FOUND if any(each.severity == "error" for each in findings) else OK

    return with_database(run, work)


async def refusals(connection: Connection, config: NodeConfig) -> AsyncIterator[Finding]:
    """A finding for every cache of ``config`` whose SQL cannot be cached exactly as things are."""
    for cache in config.caches.values():
        try:
            await analyse(connection, cache.select, depends=cache.depends)
        except CacheRefused as refusal:
            reason, remedy = _parts(str(refusal), cache.name)
            problem = f"cache {cache.name} is refused: {reason}"
            yield Finding(severity="error", table=None, problem=problem, remedy=remedy)


def _parts(refusal: str, cache: str) -> tuple[str, str]:
    command = _COMMAND_AT_THE_END.fullmatch(refusal)
    if command is None:
        return refusal, f"change caches.{cache}.sql"
    # Without TABLE, track also finds the columns by which the caches look rows up.
    remedy = "snapring track" if command[1].startswith("changes of ") else command[2]
    return command[1], remedy


def _report(run: Run, findings: Sequence[Finding]) -> None:
    if run.json:
        print_json([asdict(finding) for finding in findings])
    elif not findings:
        print_line("nothing is amiss")
    elif run.terminal:
        columns = ("severity", "table", "problem", "remedy")
        print_table(
            columns, [(each.severity, each.table or "", each.problem, each.remedy) for each in findings]
        )
    else:
        for each in findings:
            place = f"{each.table}: " if each.table else ""
            print_line(f"{each.severity}: {place}{each.problem}\n    {each.remedy}")
