"""Differential test: no write changes an answer without touching a tag that the answer carries.

``SNAPRING_FUZZ_SECONDS`` sets how long random cases are tried, ``SNAPRING_FUZZ_SEED`` repeats a run. A wrong
answer is shrunk and kept in ``fuzz_cases``, where every later run tries it again.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any

import pytest
from psycopg import AsyncConnection, AsyncRawCursor

from cluster.analysis import implications, relevance, scopes
from cluster.analysis.equalities import Facts
from cluster.analysis.implications import Exported
from cluster.analysis.nodetree import Node
from cluster.capture import install
from differential import CASES, Case, Differential

SECONDS = float(os.environ.get("SNAPRING_FUZZ_SECONDS", "6"))
SEED = int(os.environ.get("SNAPRING_FUZZ_SEED", time.time_ns() % 10**9))
ROUNDS = 12
FINDS = {"or_taken_for_and": 2, "on_restricts_both_sides": 4, "limit_lets_through": 1}
"""Seeds with which each broken rule shows soon, so that the suite stays quick."""
LEAST_KEYED = 0.3
"""The share of queries that must have a key-grain dependency: coarse findings prove nothing."""


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection to a database with nothing but capture."""
    async with await AsyncConnection.connect(
        database, autocommit=True, cursor_factory=AsyncRawCursor
    ) as opened:
        await install(opened)
        yield opened


async def test_no_random_write_changes_an_answer_unnoticed(connection: AsyncConnection[Any]) -> None:
    """Random schemas, queries and writes, until the time is over."""
    run = Differential(connection, Random(SEED))
    until_s = time.monotonic() + SECONDS
    while time.monotonic() < until_s:
        case = await run.round()
        if case is not None:
            path = (await run.shrink(case)).save(f"found_{SEED}")
            pytest.fail(f"seed {SEED}: a wrong answer, kept as {path}")
    print(f"seed {SEED}: {run.figures}")
    assert run.figures.keyed >= LEAST_KEYED * run.figures.queries, f"seed {SEED}: {run.figures}"


async def test_no_kept_case_shows_a_wrong_answer(connection: AsyncConnection[Any]) -> None:
    """What was once wrong, and what a broken rule gets wrong, stays right."""
    run = Differential(connection, Random(0))
    cases = {path.name: Case.load(path) for path in sorted(CASES.glob("*.json"))}
    assert cases
    for name, case in cases.items():
        assert not await run.shows(case), name


def or_taken_for_and(patch: pytest.MonkeyPatch) -> None:
    """Every arm of an OR is taken to hold."""

    def conjuncts(condition: Node | None) -> Iterator[Node]:
        if condition is not None and condition.label == "BOOLEXPR" and condition.text("boolop") != "not":
            for part in condition.nodes("args"):
                yield from conjuncts(part)
        elif condition is not None:
            yield condition

    for module in (implications, relevance, scopes):
        patch.setattr(module, "conjuncts", conjuncts)


def on_restricts_both_sides(patch: pytest.MonkeyPatch) -> None:
    """The condition of an outer join is taken to hold for the rows of both sides."""
    patch.setattr(relevance, "join_facts", lambda _, *facts: (sum(facts[1:], facts[0]),) * 2)


def limit_lets_through(patch: pytest.MonkeyPatch) -> None:
    """A condition on a subquery is taken to reach the rows below its LIMIT."""
    patch.setattr(relevance, "cuts", lambda _: False)


def windows_let_through(patch: pytest.MonkeyPatch) -> None:
    """A condition on a subquery is taken to reach the rows below aggregates and window functions."""
    patch.setattr(relevance, "_partitions", lambda _: iter(()))


def outer_joins_are_inner(patch: pytest.MonkeyPatch) -> None:
    """Rows that an outer join fills with nulls are taken to be dropped."""
    patch.setattr(relevance, "stricter", lambda _, **__: implications.INNER)


def aggregates_need_rows(patch: pytest.MonkeyPatch) -> None:
    """An aggregate without GROUP BY is taken to give no row where no row meets its WHERE."""
    for module in (implications, relevance):
        patch.setattr(module, "may_answer_from_nothing", lambda _: False)


def every_in_must_be_true(patch: pytest.MonkeyPatch) -> None:
    """IN is taken to be demanded wherever it stands, under NOT too."""
    real = relevance._Walk._sublink
    patch.setattr(relevance._Walk, "_sublink", lambda walk, *told, demanded: real(walk, *told, demanded=True))


def first_branch_speaks_for_all(patch: pytest.MonkeyPatch) -> None:
    """What the first branch of a UNION gives is taken to be what all of it gives."""
    patch.setattr(implications, "_common", lambda parts, _: parts[0] if parts else Exported())


def everything_lets_through(patch: pytest.MonkeyPatch) -> None:
    """A condition on a subquery is taken to reach the rows behind, whatever stands between."""
    patch.setattr(
        relevance, "columns_through", lambda query: frozenset(range(1, len(query.nodes("targetList")) + 1))
    )


def joins_always_match(patch: pytest.MonkeyPatch) -> None:
    """The condition of an outer join is taken to be true of every row that the join gives."""
    real = implications.Implications.always

    def always(self: implications.Implications, item: Node, scope: scopes.Scope) -> Facts:
        if item.label != "JOINEXPR":
            return real(self, item, scope)
        left, right = implications.sides(item)
        return (
            self.condition(item.node("quals"), scope) + always(self, left, scope) + always(self, right, scope)
        )

    patch.setattr(implications.Implications, "always", always)


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "broken_or_": or_taken_for_and,
    "broken_join": on_restricts_both_sides,
    "broken_limit": limit_lets_through,
    "broken_window": windows_let_through,
    "broken_group": windows_let_through,
    "broken_strict": outer_joins_are_inner,
    "broken_nothing": aggregates_need_rows,
    "broken_not_in": every_in_must_be_true,
    "broken_through": everything_lets_through,
    "broken_exports": joins_always_match,
    "broken_union": first_branch_speaks_for_all,
}


async def test_each_kept_case_shows_a_broken_rule(
    connection: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaking a rule of the finding turns its case into a wrong answer: the criterion has teeth."""
    run = Differential(connection, Random(0))
    for name, break_rule in BROKEN.items():
        with monkeypatch.context() as patch:
            break_rule(patch)
            assert await run.shows(Case.load(CASES / f"{name}.json")), name


@pytest.mark.parametrize("break_rule", [or_taken_for_and, on_restricts_both_sides, limit_lets_through])
async def test_the_fuzzer_itself_finds_a_broken_rule(
    connection: AsyncConnection[Any],
    monkeypatch: pytest.MonkeyPatch,
    break_rule: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """Random cases show it too, within a bounded number of rounds."""
    break_rule(monkeypatch)
    run = Differential(connection, Random(FINDS[break_rule.__name__]))
    for _ in range(ROUNDS):
        if await run.round() is not None:
            return
    pytest.fail(f"not found: {run.figures}")
