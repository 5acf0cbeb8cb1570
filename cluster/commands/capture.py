"""``snapring init``, ``track`` and ``untrack``: what the database keeps for its caches."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from cluster import capture
from cluster.analysis.needs import Need, needs
from cluster.capture import TrackedTable
from cluster.commands.database import Connection, with_database
from cluster.commands.outcomes import OK
from cluster.commands.run import CallError, Run, print_json, print_line
from cluster.config import CacheConfig, NodeConfig

DEFAULT_BULK_LIMIT: Final = CacheConfig(name="default").bulk_limit

_FULL_NAMES: Final = """
SELECT format('%%I.%%I', n.nspname, c.relname) FROM unnest(%s::text[]) AS given(name)
  JOIN pg_class c ON c.oid = to_regclass(given.name) JOIN pg_namespace n ON n.oid = c.relnamespace
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one table."""

    table: str
    outcome: Literal["tracked", "unchanged", "untracked"]
    columns: tuple[str, ...] = ()
    bulk_limit: int | None = None
    caches: tuple[str, ...] = ()


def init(run: Run) -> int:
    """Install the schema, or bring it up to date; with ``--role``, let that role run a node."""
    role: str | None = run.arguments.role

    async def work(connection: Connection, _: NodeConfig) -> int:
        before = await capture.installed_version(connection)
        await capture.install(connection)
        if role is not None:
            await capture.allow(connection, role)
        if run.json:
            print_json({"version": capture.VERSION, "version_before": before, "role": role})
            return OK
        history = "new" if before is None else f"was {before}"
        print_line(f"schema snapring: version {capture.VERSION} ({history})")
        if role is not None:
            print_line(f"role {role} may run a node; it also needs SELECT on the tables that the caches read")
        return OK

    return with_database(run, work)


def track(run: Run) -> int:
    """Put the named tables under capture, or those that the configured caches read."""
    tables, columns, bulk_limit = run.arguments.tables, run.arguments.columns, run.arguments.bulk_limit
    if columns is not None and len(tables) != 1:
        raise CallError("--columns is for one TABLE")
    if bulk_limit is not None and not tables:
        raise CallError("--bulk-limit is for a named TABLE: without one, the caches' bulk_limit counts")
    limit = DEFAULT_BULK_LIMIT if bulk_limit is None else bulk_limit
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]

    async def work(connection: Connection, config: NodeConfig) -> int:
        if not tables and not config.caches:
            raise CallError("name a TABLE, or configure the caches whose tables are meant")
        if not tables:
            _report(run, await track_for_caches(connection, config))
            return OK
        for table in tables:
            await capture.track(connection, table, names, bulk_limit=limit)
        _report(run, await _now_tracked(connection, tables))
        return OK

    return with_database(run, work)


def untrack(run: Run) -> int:
    """Take the named tables off capture."""
    tables = run.arguments.tables

    async def work(connection: Connection, _: NodeConfig) -> int:
        for table in tables:
            await capture.untrack(connection, table)
        _report(run, [Outcome(table=table, outcome="untracked") for table in tables])
        return OK

    return with_database(run, work)


async def track_for_caches(connection: Connection, config: NodeConfig) -> list[Outcome]:
    """Put every table under capture that the caches of ``config`` read, as `cluster.analysis.needs` says.

    A table that already is, with these columns and this limit, is left in peace. Raises `ConfigInvalid`
    if the SQL of a cache is refused, `cluster.capture.CaptureRefused` if a table is.
    """
    before = {table.table: table for table in await capture.tracked(connection)}
    outcomes = []
    for need in await needs(connection, config.caches):
        fits = _fits(before.get(need.table), need)
        if not fits:
            await capture.track(connection, need.table, need.columns, bulk_limit=need.bulk_limit)
        outcomes.append(
            Outcome(
                table=need.table,
                outcome="unchanged" if fits else "tracked",
                columns=need.columns,
                bulk_limit=need.bulk_limit,
                caches=need.caches,
            )
        )
    return outcomes


def _fits(table: TrackedTable | None, need: Need) -> bool:
    return (
        table is not None
        and table.flaw is None
        and set(table.columns) == set(need.columns)
        and table.bulk_limit == need.bulk_limit
    )


async def _now_tracked(connection: Connection, tables: Sequence[str]) -> list[Outcome]:
    found = await connection.execute(_FULL_NAMES, (list(tables),))
    names = {name for (name,) in await found.fetchall()}
    return [
        Outcome(table=each.table, outcome="tracked", columns=each.columns, bulk_limit=each.bulk_limit)
        for each in await capture.tracked(connection)
        if each.table in names
    ]


def _report(run: Run, outcomes: Iterable[Outcome]) -> None:
    if run.json:
        print_json([asdict(outcome) for outcome in outcomes])
        return
    for each in outcomes:
        print_line(f"{each.outcome} {each.table}{_details(each)}")


def _details(outcome: Outcome) -> str:
    if outcome.bulk_limit is None:
        return ""
    columns = ", ".join(outcome.columns) or "no columns"
    readers = f", read by {', '.join(outcome.caches)}" if outcome.caches else ""
    return f" ({columns}; bulk limit {outcome.bulk_limit}{readers})"
