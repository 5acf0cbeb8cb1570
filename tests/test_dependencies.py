"""Which rows a query depends on, as found with a real PostgreSQL."""

from collections.abc import Iterator

import psycopg
import pytest

from cluster.analysis.relevance import reads
from cluster.analysis.scopes import EQUALITY, INTEGER_CASTS, Comparable
from dependency_schema import analysed_database, found, grains, tree
from servers import Server

MEMBERS = "members.team_id=$1"


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """A database with the schema of `dependency_schema`."""
    with analysed_database(server) as found_url:
        yield found_url


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM teams WHERE id = $1", {"teams.id=$1"}),
        ("SELECT * FROM teams WHERE $1 = id", {"teams.id=$1"}),
        ("SELECT * FROM teams t WHERE (t).id = $1", {"teams.id=$1"}),
        ("SELECT * FROM teams WHERE id = $1 AND price > 3", {"teams.id=$1"}),
        ("SELECT * FROM teams WHERE name = $1", {"teams.name=$1"}),
        ("SELECT * FROM teams WHERE plan = $1", {"teams"}),
        ("SELECT * FROM users WHERE email = $1", {"users.email=$1"}),
        ('SELECT * FROM users WHERE email = $1::text COLLATE "C"', {"users.email=$1"}),
        ("SELECT * FROM users WHERE born = $1", {"users.born=$1"}),
        ("SELECT * FROM users WHERE code = $1", {"users.code=$1"}),
        ("SELECT * FROM users WHERE ref = $1", {"users.ref=$1"}),
        ("SELECT * FROM users WHERE raw = $1", {"users.raw=$1"}),
        ("SELECT * FROM users WHERE id = $1::int", {"users.id=$1"}),
        ("SELECT * FROM members WHERE kind = $1::bigint", {"members.kind=$1"}),
        ("SELECT * FROM members WHERE (team_id, user_id) = ($1, $2)", {"members.team_id=$1"}),
        ("SELECT * FROM users WHERE email = $1 AND id = $2", {"users.id=$2"}),
        ("SELECT * FROM teams WHERE id IN ($1, $2)", {"teams.id=$1", "teams.id=$2"}),
        ("SELECT * FROM teams WHERE id = $1 OR id = $2", {"teams.id=$1", "teams.id=$2"}),
        ("SELECT * FROM teams WHERE (id = $1 AND price > 3) OR id = $1", {"teams.id=$1"}),
        ("TABLE teams", {"teams"}),
        ("SELECT 1 AS one WHERE $1 > 3", set()),
    ],
)
async def test_a_column_that_must_equal_an_argument_gives_key_grain(
    url: str, sql: str, expected: set[str]
) -> None:
    """A conjunct column = $n over types that compare as text narrows the dependency to those rows."""
    assert await grains(url, sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM teams WHERE id > $1",
        "SELECT * FROM teams WHERE id <> $1",
        "SELECT * FROM teams WHERE NOT (id <> $1)",
        "SELECT * FROM teams WHERE id = $1 OR name = $2",
        "SELECT * FROM teams WHERE id = $1 OR $2",
        "SELECT * FROM teams WHERE NOT id = $1",
        "SELECT * FROM teams WHERE (id = $1) IS NOT FALSE",
        "SELECT * FROM teams WHERE id IS NOT DISTINCT FROM $1",
        "SELECT * FROM teams WHERE id = ANY ($1)",
        "SELECT * FROM teams WHERE id IN ($1, 3)",
        "SELECT * FROM teams WHERE id = 3",
        "SELECT * FROM teams WHERE id = $1 + 1",
        "SELECT * FROM teams WHERE id + 0 = $1",
        "SELECT * FROM teams WHERE id::text = $1",
        "SELECT * FROM teams WHERE id::oid = $1",
        "SELECT * FROM teams WHERE id = $1::numeric",
        "SELECT * FROM teams WHERE price = $1",
        "SELECT * FROM teams WHERE made = $1",
        "SELECT * FROM teams WHERE coalesce(id, 0) = $1",
        "SELECT count(*) FROM teams HAVING max(id) = $1",
        "SELECT id = $1 AS same FROM teams",
        "SELECT * FROM teams ORDER BY id = $1",
        "SELECT count(*) FILTER (WHERE id = $1) FROM teams",
    ],
)
async def test_anything_else_depends_on_the_whole_table(url: str, sql: str) -> None:
    """A condition that is no plain equality, or that need not hold, does not narrow the dependency."""
    assert await grains(url, sql) == {"teams"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT u.* FROM members m JOIN users u ON u.id = m.user_id WHERE m.team_id = $1", {MEMBERS, "users"}),
        ("SELECT t.* FROM teams t JOIN members m ON m.team_id = t.id WHERE t.id = $1", {"teams.id=$1", MEMBERS}),
        ("SELECT t.* FROM teams t, members m WHERE m.team_id = t.id AND t.id = $1", {"teams.id=$1", MEMBERS}),
        ("SELECT role FROM members NATURAL JOIN (SELECT id AS team_id FROM teams) t WHERE team_id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT t.id FROM teams t LEFT JOIN members m ON m.team_id = t.id WHERE t.id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT t.id FROM teams t LEFT JOIN members m ON m.team_id = $1", {"teams", MEMBERS}),
        ("SELECT t.id FROM teams t LEFT JOIN members m ON m.team_id = t.id AND t.id = $1", {"teams", MEMBERS}),
        ("SELECT t.id FROM teams t LEFT JOIN members m ON m.team_id = t.id WHERE m.team_id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT t.id FROM teams t LEFT JOIN members m ON m.team_id = t.id WHERE m.team_id IS NULL AND t.id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT t.id FROM members m RIGHT JOIN teams t ON m.team_id = $1", {"teams", MEMBERS}),
        ("SELECT t.id FROM teams t FULL JOIN members m ON m.team_id = t.id AND t.id = $1", {"teams", "members"}),
        ("SELECT id FROM teams FULL JOIN (SELECT team_id AS id FROM members) m USING (id) WHERE id = $1",
         {"teams", "members"}),
        ("SELECT t.id FROM teams t FULL JOIN members m ON m.team_id = t.id WHERE t.id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT t.id FROM teams t LEFT JOIN (members m JOIN users u ON u.id = m.user_id AND u.id = $1) ON true",
         {"teams", "members.user_id=$1", "users.id=$1"}),
        ("SELECT a.id FROM teams a JOIN teams b ON a.name = b.name WHERE a.id = $1", {"teams"}),
        ("SELECT a.id FROM teams a JOIN teams b ON a.id = b.id WHERE a.id = $1", {"teams.id=$1"}),
        ("SELECT t.id FROM teams t JOIN (VALUES ($1::int)) v (id) ON v.id = t.id", {"teams.id=$1"}),
        ("SELECT t.id FROM teams t JOIN (VALUES ($1::int), (3)) v (id) ON v.id = t.id", {"teams"}),
        ("SELECT t.id FROM teams t JOIN generate_series(1, $1) g ON g = t.id", {"teams"}),
    ],
)  # fmt: skip
async def test_joins_pass_on_what_must_hold(url: str, sql: str, expected: set[str]) -> None:
    """Equalities reach the other side of a join, and never a side whose rows appear regardless."""
    assert await grains(url, sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM (SELECT team_id, role FROM members) x WHERE team_id = $1", {MEMBERS}),
        ("SELECT * FROM (SELECT DISTINCT team_id, role FROM members) x WHERE team_id = $1", {MEMBERS}),
        ("SELECT * FROM (SELECT team_id, role FROM members LIMIT 3) x WHERE team_id = $1", {"members"}),
        ("SELECT * FROM (SELECT team_id, role FROM members OFFSET 1) x WHERE team_id = $1", {"members"}),
        ("SELECT * FROM (SELECT team_id FROM members WHERE team_id = $1 LIMIT 3) x", {MEMBERS}),
        ("SELECT * FROM (SELECT team_id, count(*) FROM members GROUP BY team_id) x WHERE team_id = $1", {MEMBERS}),
        ("SELECT * FROM (SELECT role, max(team_id) AS team_id FROM members GROUP BY role) x WHERE team_id = $1",
         {"members"}),
        ("SELECT * FROM (SELECT team_id, count(*) FROM members GROUP BY ROLLUP (team_id)) x WHERE team_id = $1",
         {"members"}),
        ("SELECT team_id, count(*) FROM members WHERE team_id = $1 GROUP BY ROLLUP (team_id)", {MEMBERS}),
        ("SELECT team_id, count(*) FROM members GROUP BY team_id HAVING team_id = $1", {"members"}),
        ("SELECT * FROM (SELECT team_id, rank() OVER (ORDER BY kind) AS n FROM members) x WHERE team_id = $1",
         {"members"}),
        (("SELECT * FROM (SELECT team_id, rank() OVER (PARTITION BY team_id) AS n FROM members) x "
         "WHERE team_id = $1"), {MEMBERS}),
        (("SELECT * FROM (SELECT team_id, rank() OVER (PARTITION BY team_id) AS n, count(*) OVER () AS m "
         "FROM members) x WHERE team_id = $1"), {"members"}),
        ("SELECT * FROM (SELECT DISTINCT ON (role) role, team_id FROM members) x WHERE team_id = $1", {"members"}),
        ("SELECT * FROM (SELECT DISTINCT ON (team_id) role, team_id FROM members) x WHERE team_id = $1", {MEMBERS}),
        ("SELECT rank() OVER (ORDER BY kind) AS n FROM members WHERE team_id = $1", {MEMBERS}),
        ("SELECT * FROM (SELECT id FROM teams UNION SELECT team_id FROM members) x WHERE id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT * FROM (SELECT id FROM teams EXCEPT ALL SELECT team_id FROM members) x WHERE id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT * FROM (SELECT id FROM teams UNION SELECT team_id FROM members LIMIT 1) x WHERE id = $1",
         {"teams", "members"}),
        ("SELECT id FROM teams WHERE id = $1 UNION ALL SELECT team_id FROM members", {"teams.id=$1", "members"}),
        ("WITH mine AS (SELECT * FROM members) SELECT role FROM mine WHERE team_id = $1", {MEMBERS}),
        ("WITH mine AS MATERIALIZED (SELECT * FROM members) SELECT role FROM mine WHERE team_id = $1", {MEMBERS}),
        ("WITH mine AS (SELECT * FROM members) SELECT a.role FROM mine a, mine b WHERE a.team_id = $1", {"members"}),
        ("WITH me AS (SELECT id FROM users WHERE id = $1) SELECT role FROM members JOIN me ON user_id = me.id",
         {"users.id=$1", "members.user_id=$1"}),
        ("WITH unused AS (SELECT * FROM users) SELECT id FROM teams WHERE id = $1", {"users", "teams.id=$1"}),
        ("WITH members AS (SELECT id FROM teams) SELECT id FROM members WHERE id = $1", {"teams.id=$1"}),
        (("WITH RECURSIVE r (id) AS (SELECT id FROM teams WHERE id = $1 UNION SELECT m.kind FROM members m "
         "JOIN r ON r.id = m.team_id) SELECT id FROM r"), {"teams.id=$1", "members"}),
        ("WITH RECURSIVE r (id) AS (SELECT id FROM teams UNION SELECT id + 1 FROM r) SELECT id FROM r WHERE id = $1",
         {"teams"}),
    ],
)  # fmt: skip
async def test_a_condition_on_a_subquery_reaches_the_rows_behind_where_it_may(
    url: str, sql: str, expected: set[str]
) -> None:
    """Not past LIMIT, aggregates, DISTINCT ON or windows, unless whole groups live or die by it."""
    assert await grains(url, sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT name FROM teams WHERE EXISTS (SELECT FROM members WHERE team_id = $1)", {"teams", MEMBERS}),
        ("SELECT name FROM teams t WHERE EXISTS (SELECT FROM members WHERE team_id = t.id) AND id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT name FROM teams t WHERE NOT EXISTS (SELECT FROM members WHERE team_id = t.id) AND id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT name FROM teams t WHERE EXISTS (SELECT FROM members m WHERE m.team_id = t.id AND m.team_id = $1)",
         {"teams.id=$1", MEMBERS}),
        ("SELECT name FROM teams t WHERE NOT EXISTS (SELECT FROM members m WHERE m.team_id = t.id AND t.id = $1)",
         {"teams", MEMBERS}),
        ("SELECT name FROM teams t WHERE EXISTS (SELECT count(*) FROM members m WHERE m.team_id = t.id AND t.id = $1)",
         {"teams", MEMBERS}),
        ("SELECT name FROM teams WHERE id IN (SELECT team_id FROM members WHERE user_id = $1)",
         {"teams", "members.user_id=$1"}),
        ("SELECT name FROM teams WHERE id IN (SELECT team_id FROM members) AND id = $1", {"teams.id=$1", MEMBERS}),
        ("SELECT name FROM teams WHERE id NOT IN (SELECT team_id FROM members) AND id = $1",
         {"teams.id=$1", "members"}),
        ("SELECT name FROM teams WHERE id IN (SELECT team_id FROM members WHERE team_id = $1)",
         {"teams.id=$1", MEMBERS}),
        ("SELECT name FROM teams WHERE id IN (SELECT team_id FROM members LIMIT 1) AND id = $1",
         {"teams.id=$1", "members"}),
        ("SELECT id IN (SELECT team_id FROM members) AS x FROM teams WHERE id = $1", {"teams.id=$1", "members"}),
        ("SELECT (SELECT count(*) FROM members WHERE team_id = t.id) FROM teams t WHERE id = $1",
         {"teams.id=$1", MEMBERS}),
        ("SELECT (SELECT count(*) FROM members) FROM teams WHERE id = $1", {"teams.id=$1", "members"}),
        ("SELECT n FROM teams t, LATERAL (SELECT count(*) AS n FROM members WHERE team_id = t.id) x WHERE t.id = $1",
         {"teams.id=$1", MEMBERS}),
        (("SELECT n FROM teams t LEFT JOIN LATERAL (SELECT role AS n FROM members WHERE team_id = t.id LIMIT 1) x "
         "ON true WHERE t.id = $1"), {"teams.id=$1", MEMBERS}),
        ("SELECT (SELECT name FROM teams WHERE id = team_id) FROM members WHERE team_id = $1 GROUP BY team_id",
         {"teams.id=$1", MEMBERS}),
        ("SELECT id FROM teams ORDER BY (SELECT max(kind) FROM members WHERE team_id = id) LIMIT 1",
         {"teams", "members"}),
        ("SELECT id FROM teams WHERE id = $1 LIMIT (SELECT count(*) FROM users)", {"teams.id=$1", "users"}),
        ("SELECT x FROM unnest(ARRAY(SELECT id FROM teams WHERE id = $1)) x", {"teams.id=$1"}),
        (("SELECT (SELECT id FROM users LIMIT 1) AS n, (SELECT count(*) FROM (SELECT 1 FROM members m WHERE "
         "m.team_id = t.id) x) AS k FROM teams t WHERE id = $1"), {"teams.id=$1", MEMBERS, "users"}),
    ],
)  # fmt: skip
async def test_subqueries_in_expressions_get_what_holds_of_the_row_around_them(
    url: str, sql: str, expected: set[str]
) -> None:
    """EXISTS, IN, scalar and LATERAL subqueries, correlated or not."""
    assert await grains(url, sql) == expected


async def test_an_aggregate_that_is_evaluated_without_rows_knows_nothing_of_its_where(url: str) -> None:
    """SELECT count(*) gives a row even where its WHERE fails, so its other columns may read anything."""
    sql = """
        SELECT (SELECT x FROM (SELECT count(*) AS n, (SELECT max(role) FROM members WHERE team_id = t.id) AS x
                                 FROM users u WHERE u.id = t.id AND u.id = $1) y)
          FROM teams t
    """
    assert await grains(url, sql) == {"teams", "members", "users.id=$1"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM paying WHERE team = $1", {"teams.id=$1"}),
        ("SELECT * FROM roster WHERE team = $1", {"teams.id=$1", MEMBERS}),
        ("SELECT * FROM ready WHERE id = $1", {"ready"}),
        ("SELECT * FROM events WHERE id = $1", {"events.id=$1"}),
        ("SELECT * FROM events_2 WHERE id = $1", {"events.id=$1"}),
        ("SELECT * FROM ONLY events WHERE id = $1", {"events.id=$1"}),
        ("SELECT * FROM events_1 a, events_2 b (c, d, e)", {"events"}),
    ],
)
async def test_views_and_partitions_lead_to_the_tables_under_capture(
    url: str, sql: str, expected: set[str]
) -> None:
    """Views are expanded, partitions are their root, a materialized view is itself."""
    assert await grains(url, sql) == expected


async def test_the_analysis_tells_parameters_columns_and_relations(url: str) -> None:
    """Types are Postgres' own inference; relations include views."""
    analysis = await found(url, "SELECT team, name AS n, $2::date AS d FROM paying WHERE team = $1")
    assert analysis.parameters == 2
    assert analysis.parameter_types == (23, 1082)
    assert analysis.columns == ("team", "n", "d")
    assert analysis.column_types == (23, 25, 1082)
    assert analysis.clock_parameters == (2,)
    assert len(analysis.relations) == 2
    assert analysis.catalog_version


async def test_an_untracked_column_is_coarse_and_says_how_to_track_it(url: str) -> None:
    """The reason names the command that would narrow the dependency."""
    (dependency,) = (await found(url, "SELECT * FROM members WHERE role = $1")).dependencies
    assert dependency.param is None
    assert "snapring track public.members --columns team_id,user_id,kind,role" in dependency.reason


async def test_a_nondeterministic_collation_is_coarse(url: str) -> None:
    """Where 'Ann' equals 'ann', the text of an argument does not name the rows."""
    query = await tree(url, "SELECT id FROM teams WHERE name = $1 AND id = $2")
    default_collation = 100  # stands in for one in which different texts are equal
    (read,) = reads(query, Comparable(nondeterministic=frozenset((default_collation,))))
    assert [numbers for numbers, _ in read.bound.values()] == [{2}]


async def test_a_chain_of_equalities_is_told(url: str) -> None:
    """The reason shows how an argument reaches a column."""
    sql = "SELECT m.role FROM teams t JOIN members m ON m.team_id = t.id WHERE t.id = $1"
    reasons = {each.table: each.reason for each in (await found(url, sql)).dependencies}
    assert reasons["public.members"] == "m.team_id = t.id = $1"


async def test_a_query_of_a_thousand_uses_of_one_another_still_ends(url: str) -> None:
    """Nested WITH queries that double at each step are bounded, and what is left is coarse."""
    steps = ["w0 AS (SELECT id FROM teams)"]
    steps += [f"w{n} AS (SELECT a.id FROM w{n - 1} a JOIN w{n - 1} b ON a.id = b.id)" for n in range(1, 16)]
    assert await grains(url, f"WITH {', '.join(steps)} SELECT id FROM w15 WHERE id = $1") == {"teams"}


async def test_the_built_in_operators_and_casts_are_what_they_are_taken_for(url: str) -> None:
    """The numbers that stand for equality and for integer casts mean the same on this server."""
    with psycopg.connect(url) as connection:
        operators = connection.execute(
            "SELECT oid::int, oprname, oprcode::text FROM pg_operator WHERE oid = ANY (%s)", [list(EQUALITY)]
        ).fetchall()
        casts = connection.execute(
            "SELECT castfunc::int FROM pg_cast WHERE castsource = ANY (%s) AND casttarget = ANY (%s)",
            [[20, 21, 23], [20, 21, 23]],
        ).fetchall()
    assert {oid for oid, name, _ in operators if name == "="} == EQUALITY
    assert {code for _, _, code in operators} == {
        "int2eq", "int4eq", "int8eq", "int24eq", "int42eq", "int28eq", "int82eq", "int48eq", "int84eq",
        "texteq", "booleq", "oideq", "date_eq", "byteaeq", "uuid_eq",
    }  # fmt: skip
    assert {oid for (oid,) in casts} == INTEGER_CASTS
