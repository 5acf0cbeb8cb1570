"""``snapring explain CACHE``: what its entries depend on, and why."""

from collections.abc import Iterator
from dataclasses import asdict

from cluster.analysis.catalog import Analysis, analyse
from cluster.commands.database import Connection, with_database
from cluster.commands.run import FOUND, OK, CallError, Run, complain, print_json, print_line
from cluster.config import CacheConfig, NodeConfig
from cluster.dependencies import Dependency
from snapring.errors import CacheRefused


def run(run: Run) -> int:
    """Print the dependencies of one cache; the exit code is 1 if the cache is refused."""

    async def work(connection: Connection, config: NodeConfig) -> int:
        cache = config.caches.get(run.arguments.cache)
        if cache is None:
            known = ", ".join(config.caches) or "none"
            raise CallError(f"there is no cache {run.arguments.cache}; configured: {known}")
        try:
            analysis = await analyse(connection, cache.sql, depends=cache.depends)
        except CacheRefused as refusal:
            if run.json:
                print_json({"cache": cache.name, "refused": str(refusal)})
            complain(f"cache {cache.name} is refused: {refusal}")
            return FOUND
        _report(run, cache, analysis)
        return OK

    return with_database(run, work)


def lines(cache: CacheConfig, analysis: Analysis) -> Iterator[str]:
    """The explanation, for people."""
    origin = "as its depends says" if analysis.overridden else "found in its SQL"
    yield f"cache {cache.name}, {analysis.parameters} parameter(s); an entry depends, {origin}, on"
    for dependency in analysis.dependencies:
        yield f"  {_rows(dependency)}"
        yield f"      {dependency.reason}"
    if not analysis.dependencies:
        yield "  nothing: it is true until its ttl"
    for note in analysis.notes:
        yield f"note: {note}"


def _rows(dependency: Dependency) -> str:
    if dependency.column is None:
        return f"{dependency.table}: every change of the table"
    return f"{dependency.table}: changes of the rows with {dependency.column} = ${dependency.param}"


def _report(run: Run, cache: CacheConfig, analysis: Analysis) -> None:
    if run.json:
        found = [asdict(dependency) for dependency in analysis.dependencies]
        print_json(
            {
                "cache": cache.name,
                "parameters": analysis.parameters,
                "overridden": analysis.overridden,
                "dependencies": found,
                "notes": list(analysis.notes),
            }
        )
        return
    for line in lines(cache, analysis):
        print_line(line)
