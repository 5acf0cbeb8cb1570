"""The differential test of the dependency finding: does a write that changes an answer touch its tags?

A query is analysed and run; a random write transaction commits; the query is run again. If the answer
differs, a tag that the write left in ``snapring.changes`` must be one of the answer's: otherwise a node
would go on serving the old answer as the truth.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Final, Literal

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import TupleRow

import sqlfuzz
import sqlqueries
from cluster.analysis.catalog import Analysis, analyse
from cluster.capture import track
from cluster.tags import bulk_tag, table_tag, tag_expression
from snapring.errors import CacheRefused

Connection = AsyncConnection[TupleRow]
CASES: Final = Path(__file__).parent / "fuzz_cases"
BULK_LIMIT: Final = 8
ARGUMENTS: Final = 8
KEPT: Final = 3
"""With how many draws of arguments each query is tried, and how many are followed."""
_FILLED: Final = (*sqlfuzz.TABLES, "h_0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What shows one wrong answer: fill the tables, run the query, ``writes``, run the query again.

    ``record`` is what the query was drawn from, for shrinking.
    """

    tracked: dict[str, list[str]]
    rows: list[str]
    sql: str
    arguments: list[str | None]
    writes: list[str]
    record: list[int]

    def save(self, name: str) -> Path:
        """Keep the case as a regression test."""
        path = CASES / f"{name}.json"
        path.write_text(json.dumps({**asdict(self), "record": []}, indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> "Case":
        """A case that `save` kept."""
        return cls(**json.loads(path.read_text()))


@dataclass(slots=True, kw_only=True)
class Entry:
    """A query with arguments, its answer, and the tags that a node would keep it under."""

    sql: str
    arguments: list[str | None]
    tags: frozenset[int]
    record: list[int]
    answer: list[str]


@dataclass(slots=True)
class Figures:
    """What a run did. ``keyed``: queries with a key-grain dependency; ``sharp``: with nothing else.

    ``pairs``: a query run before and after a write; ``noticed`` counts those that the write's tags touch.
    """

    queries: int = 0
    invalid: int = 0
    refused: int = 0
    keyed: int = 0
    sharp: int = 0
    pairs: int = 0
    changed: int = 0
    noticed: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {number:,}" for name, number in asdict(self).items())


class Differential:
    """One run over schemas, queries and writes drawn from ``rng``, in a database with nothing but capture."""

    def __init__(self, connection: Connection, rng: Random) -> None:
        self.figures = Figures()
        self._connection = connection
        self._cursor = AsyncRawCursor(connection)
        self._rng = rng
        self._built: dict[str, list[str]] | None = None

    async def round(self, *, queries: int = 30, writes: int = 60) -> Case | None:
        """A new schema, ``queries`` on it, then ``writes`` one after another: the first wrong answer."""
        tracked = sqlfuzz.tracked(sqlfuzz.Choices(self._rng))
        await self._fill(tracked, sqlfuzz.rows(sqlfuzz.Choices(self._rng)))
        entries = [entry for _ in range(queries) for entry in await self._entries()]
        for _ in range(writes):
            statements = sqlfuzz.write(sqlfuzz.Choices(self._rng))
            rows = await self._dump()
            tags = await self._write(statements)
            wrong = None if tags is None else await self._first_wrong(entries, tags)
            if wrong is not None:
                return Case(
                    tracked=tracked,
                    rows=rows,
                    sql=wrong.sql,
                    arguments=wrong.arguments,
                    writes=statements,
                    record=wrong.record,
                )
        return None

    async def shows(self, case: Case) -> bool:
        """Whether the answer of the case's query changes unnoticed."""
        await self._fill(case.tracked, case.rows)
        try:
            analysis = await analyse(self._connection, case.sql)
        except CacheRefused:
            return False
        entry = await self._entry(case.sql, case.arguments, analysis, case.record)
        tags = await self._write(case.writes) if entry is not None else None
        return entry is not None and tags is not None and await self._first_wrong([entry], tags) is not None

    async def shrink(self, case: Case) -> Case:
        """A smaller case that still shows a wrong answer."""
        smaller = case
        while True:
            before = smaller
            smaller = await self._shrink_query(smaller)
            smaller = await self._shrink_list(smaller, "writes")
            smaller = await self._shrink_list(smaller, "rows")
            if smaller == before:
                return smaller

    async def _shrink_list(self, case: Case, part: Literal["writes", "rows"]) -> Case:
        chunk = max(1, len(getattr(case, part)) // 2)
        while chunk:
            at = 0
            while at < len(getattr(case, part)):
                kept = [*getattr(case, part)]
                del kept[at : at + chunk]
                candidate = replace(case, writes=kept) if part == "writes" else replace(case, rows=kept)
                if await self.shows(candidate):
                    case = candidate
                else:
                    at += chunk
            chunk //= 2
        return case

    async def _shrink_query(self, case: Case) -> Case:
        for chunk in (16, 8, 4, 2, 1):
            at = 0
            while at < len(case.record):
                kept = [*case.record]
                del kept[at : at + chunk]
                zeroed = [*case.record[:at], *([0] * chunk), *case.record[at + chunk :]]
                for record in (kept, zeroed):
                    candidate = _redrawn(case, record)
                    if (
                        candidate != case
                        and len(candidate.sql) <= len(case.sql)
                        and await self.shows(candidate)
                    ):
                        case = candidate
                        break
                else:
                    at += chunk
        return case

    async def _fill(self, tracked: dict[str, list[str]], rows: Iterable[str]) -> None:
        """The schema under capture, with nothing in it but ``rows``."""
        if tracked != self._built:
            await self._build(tracked)
        await self._run(f"TRUNCATE {', '.join(_FILLED)} CASCADE")
        for statement in rows:
            with suppress(psycopg.errors.ForeignKeyViolation):
                await self._run(statement)

    async def _build(self, tracked: dict[str, list[str]]) -> None:
        await self._run("DROP SCHEMA IF EXISTS fuzz CASCADE")
        await self._run("CREATE SCHEMA fuzz")
        await self._run("SET search_path = fuzz, public")
        for statement in filter(str.strip, sqlfuzz.SCHEMA.split(";")):
            await self._run(statement)
        for table, columns in tracked.items():
            await track(self._connection, table, columns, bulk_limit=BULK_LIMIT)
        self._built = tracked

    async def _entries(self) -> list[Entry]:
        """The entries of one random query with two sets of arguments; none if the query is not valid."""
        choices = sqlfuzz.Choices(self._rng)
        query = sqlqueries.query(choices)
        self.figures.queries += 1
        try:
            analysis = await analyse(self._connection, query.sql)
        except CacheRefused:
            self.figures.refused += 1
            return []
        keyed = [each.param is not None for each in analysis.dependencies]
        self.figures.keyed += any(keyed)
        self.figures.sharp += bool(keyed) and all(keyed)
        draws = [sqlfuzz.arguments(sqlfuzz.Choices(self._rng), query.parameters) for _ in range(ARGUMENTS)]
        found = [await self._entry(query.sql, draw, analysis, choices.record) for draw in draws]
        entries = [entry for entry in found if entry is not None]
        # An answer without rows seldom changes.
        return sorted(entries, key=lambda entry: not entry.answer)[:KEPT]

    async def _entry(
        self, sql: str, arguments: list[str | None], analysis: Analysis, record: list[int]
    ) -> Entry | None:
        try:
            answer = await self._answer(sql, arguments)
        except psycopg.Error:
            self.figures.invalid += 1
            return None
        tags = await self._tags(analysis, arguments)
        return Entry(sql=sql, arguments=arguments, tags=tags, record=record, answer=answer)

    async def _tags(self, analysis: Analysis, arguments: Sequence[str | None]) -> frozenset[int]:
        tags: set[int] = set()
        for found in analysis.dependencies:
            if found.param is None or found.attnum is None:
                tags.add(table_tag(found.rel))
                continue
            tags.add(bulk_tag(found.rel))
            type_oid = analysis.parameter_types[found.param - 1]
            ((name,),) = await self._rows(f"SELECT format_type({type_oid}, NULL)")
            expression = tag_expression(found.rel, found.attnum, f"$1::{name}", type_oid)
            ((tag,),) = await self._rows(f"SELECT {expression}", arguments[found.param - 1])
            tags.update([] if tag is None else [tag])
        return frozenset(tags)

    async def _answer(self, sql: str, arguments: Sequence[str | None]) -> list[str]:
        return sorted(map(repr, await self._rows(sql, *arguments)))

    async def _write(self, statements: Iterable[str]) -> frozenset[int] | None:
        """Commit ``statements``; the tags they left, None if Postgres refused one of them."""
        try:
            async with self._connection.transaction():
                for statement in statements:
                    await self._run(statement)
                changes = await self._rows(
                    "SELECT rel, tag FROM snapring.changes WHERE xid = pg_current_xact_id()"
                )
        except psycopg.Error:
            return None
        tables = {table_tag(rel) for rel, _ in changes}
        return frozenset(tables.union(bulk_tag(rel) if tag is None else tag for rel, tag in changes))

    async def _first_wrong(self, entries: list[Entry], tags: frozenset[int]) -> Entry | None:
        """The first entry whose answer changed unnoticed. Those that can no longer be run are dropped."""
        answers = await self._answers(entries)
        if answers is None:
            entries[:] = [entry for entry in entries if await self._answers([entry]) is not None]
            answers = await self._answers(entries) or []
        wrong = [
            entry for entry, answer in zip(entries, answers, strict=True) if self._wrong(entry, answer, tags)
        ]
        return wrong[0] if wrong else None

    async def _answers(self, entries: list[Entry]) -> list[list[str]] | None:
        """The answers to all entries in one round trip, None if one of them failed."""
        try:
            async with self._connection.pipeline():
                cursors = [
                    await self._connection.execute(entry.sql.encode(), entry.arguments, prepare=True)
                    for entry in entries
                ]
            return [sorted(map(repr, await cursor.fetchall())) for cursor in cursors]
        except psycopg.Error:
            return None

    def _wrong(self, entry: Entry, answer: list[str], tags: frozenset[int]) -> bool:
        """Whether the answer changed unnoticed; takes the new answer over."""
        noticed, changed = not tags.isdisjoint(entry.tags), answer != entry.answer
        self.figures.pairs += 1
        self.figures.changed += changed
        self.figures.noticed += noticed
        entry.answer = answer
        return changed and not noticed

    async def _dump(self) -> list[str]:
        """Statements that put every row back that is there now."""
        statements = []
        for table in _FILLED:
            only = "ONLY " if table == "h" else ""
            found = await self._rows(f"SELECT quote_literal(t::text) FROM {only}{table} AS t")
            statements += [f"INSERT INTO {table} SELECT ({literal}::{table}).*" for (literal,) in found]
        return statements

    async def _rows(self, statement: str, *arguments: str | None) -> list[TupleRow]:
        await self._cursor.execute(statement.encode(), arguments)
        return await self._cursor.fetchall()

    async def _run(self, statement: str) -> None:
        await self._cursor.execute(statement.encode(), prepare=False)


def _redrawn(case: Case, record: list[int]) -> Case:
    """The case with the query that ``record`` gives, its arguments kept where they fit."""
    choices = sqlfuzz.Choices(record=record)
    query = sqlqueries.query(choices)
    spare = sqlfuzz.arguments(sqlfuzz.Choices(), query.parameters)
    arguments = [*case.arguments[: len(spare)], *spare[len(case.arguments) :]]
    return replace(case, sql=query.sql, arguments=arguments, record=choices.record[: len(record)])
