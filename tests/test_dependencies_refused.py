"""Queries that cannot be cached exactly are refused, with the reason and the remedy."""

from collections.abc import Iterator

import psycopg
import pytest

from cluster.analysis.statement import reads_clock, require_select
from dependency_schema import analysed_database, found, grains
from servers import Server
from snapring.errors import CacheRefused


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """A database with the schema of `dependency_schema`."""
    with analysed_database(server) as found_url:
        yield found_url


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT INTO teams VALUES (1)", "this is INSERT"),
        ("CREATE TABLE x ()", "this is CREATE"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "0 statements"),
        ("SELECT FROM WHERE", "does not parse"),
        ("SELECT * INTO x FROM teams", "SELECT INTO"),
        ("WITH x AS (DELETE FROM teams RETURNING id) SELECT * FROM x", "DELETE inside a query"),
        ("SELECT * FROM (SELECT * FROM teams FOR UPDATE) x", "lock rows"),
        ("SELECT * FROM teams FOR KEY SHARE", "lock rows"),
    ],
)
def test_what_is_not_one_reading_select_is_refused_by_its_text(sql: str, reason: str) -> None:
    """Writes, locks, several statements and nonsense never reach the database."""
    with pytest.raises(CacheRefused, match=reason):
        require_select(sql)


@pytest.mark.parametrize("sql", ["SELECT 1", "VALUES (1)", "TABLE teams", "WITH x AS (SELECT 1) TABLE x;"])
def test_every_form_of_one_select_is_taken(sql: str) -> None:
    """VALUES and TABLE are SELECTs too, and a final semicolon is no second statement."""
    require_select(sql)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT now()", r"now\(\) depends on the clock"),
        ("SELECT clock_timestamp()", "volatile"),
        ("SELECT random()", "volatile"),
        ("SELECT id FROM teams ORDER BY random()", "volatile"),
        ("SELECT nextval('counter')", "volatile"),
        ("SELECT lucky(id) FROM teams", r"lucky\(integer\) is volatile"),
        ("SELECT id FROM teams WHERE id === 3", r"lucky_equal\(integer,integer\) is volatile"),
        ("SELECT reads(id) FROM teams", "declare it IMMUTABLE.*depends"),
        ("SELECT CURRENT_DATE", "CURRENT_DATE"),
        ("SELECT id FROM teams WHERE made > LOCALTIMESTAMP", "LOCALTIMESTAMP"),
        ("SELECT CURRENT_USER", "CURRENT_USER"),
        ("SELECT current_setting('work_mem')", "the session"),
        ("SELECT pg_backend_pid()", "the session"),
        ("SELECT age(made) FROM teams", "the clock"),
        ("SELECT made > 'now' FROM teams", "relative to now"),
        ("SELECT made > E'n\\x6fw'::timestamptz FROM teams", "not written plainly"),
        ("SELECT 'no'\n'w'::timestamptz", "not written plainly"),
        ("SELECT 'é', date 'Tomorrow'", "relative to now"),
        ("SELECT '{today}'::date[]", "relative to now"),
        ("SELECT '[yesterday,)'::tstzrange", "relative to now"),
        ("SELECT name::date FROM teams", "to_date"),
        ("SELECT ARRAY[name]::date[] FROM teams", "to_date"),
        ("SELECT '10:00'::timetz", "today's offset"),
        ("SELECT id FROM users WHERE late = $1", "today's offset"),
        ("SELECT $1::text::timetz", "today's offset"),
        ("SELECT * FROM jsonb_to_recordset($1) AS x (d date)", "JSON text"),
        ("SELECT * FROM jsonb_populate_record(NULL::users, $1)", "JSON text"),
        ("SELECT id FROM teams WHERE $1::fleeting > 0", "the clock"),
        ("SELECT ctid FROM teams", "system columns"),
        ("SELECT x.xmax FROM (SELECT xmax FROM teams) x", "system columns"),
        ("SELECT id FROM teams TABLESAMPLE system (10)", "TABLESAMPLE"),
        ("SELECT id FROM untracked", "snapring track public.untracked"),
        ("SELECT oid FROM pg_class", "system catalog"),
        ("SELECT * FROM pg_stat_activity", "system catalog"),
        ("SELECT table_name FROM information_schema.tables", "system catalog"),
        ("SELECT last_value FROM counter", "sequence"),
        ("SELECT a.id, b.id FROM teams a, teams b", "two columns of the answer are named id"),
        ("SELECT nothing FROM teams", 'column "nothing" does not exist'),
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT $1", None),
        ("SELECT tableoid FROM teams", None),
        ("SELECT pure(id), to_char(made, 'YYYY'), date_trunc('day', made) FROM teams", None),
        ("SELECT jsonb_agg(t) FROM teams t", None),
        ("SELECT name = 'now' AND made > '2026-01-01' AS x FROM teams", None),
        ("SELECT * FROM jsonb_to_recordset($1) AS x (d text)", None),
        ("SELECT id FROM users WHERE code = 'now'", None),
    ],
)  # fmt: skip
async def test_what_changes_without_a_captured_write_is_refused(
    url: str, sql: str, reason: str | None
) -> None:
    """The clock, the session, randomness and what nobody captures; the harmless rest is taken."""
    if reason is None:
        await found(url, sql)
        return
    with pytest.raises(CacheRefused, match=f"(?s){reason}"):
        await found(url, sql)


async def test_row_security_that_applies_to_the_role_is_refused(url: str) -> None:
    """A policy may read anything, and is not followed; a role that bypasses it may load."""
    assert await grains(url, "SELECT id FROM secret WHERE id = $1") == {"secret.id=$1"}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS plain_reader")
        connection.execute("CREATE ROLE plain_reader")
        connection.execute("GRANT USAGE ON SCHEMA snapring TO plain_reader")
        connection.execute("GRANT SELECT ON snapring.tracked, secret TO plain_reader")
        connection.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA snapring TO plain_reader")
    try:
        with pytest.raises(CacheRefused, match=r"row security|not captured"):
            await found(f"{url}&options=-crole%3Dplain_reader", "SELECT id FROM secret WHERE id = $1")
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY plain_reader")
            connection.execute("DROP ROLE plain_reader")


async def test_a_temporary_table_is_refused(url: str) -> None:
    """Another session does not even see it, so its name may mean something else at the next load."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE passing (id int)")
        schema = connection.execute("SELECT pg_my_temp_schema()::regnamespace::text").fetchall()[0][0]
        with pytest.raises(CacheRefused, match="temporary"):
            await found(url, f"SELECT id FROM {schema}.passing")


async def test_a_table_with_a_child_outside_capture_is_refused_with_the_command(url: str) -> None:
    """Rows of the child are rows of the table, and nobody sees them change."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE events_1 DISABLE TRIGGER snapring_insert")
        try:
            with pytest.raises(CacheRefused, match=r"events_1 .*snapring track public\.events"):
                await found(url, "SELECT * FROM events WHERE id = $1")
        finally:
            connection.execute("ALTER TABLE events_1 ENABLE ALWAYS TRIGGER snapring_insert")


async def test_a_database_without_capture_is_refused_with_the_command(database: str) -> None:
    """The first thing a newcomer forgets is told by name."""
    with pytest.raises(CacheRefused, match="snapring init"):
        await found(database, "SELECT 1")


async def test_a_query_nested_without_end_is_refused(url: str) -> None:
    """Levels upon levels are told apart from a bug of the node."""
    sql = "SELECT id FROM teams"
    for level in range(300):
        sql = f"SELECT id FROM ({sql}) AS x{level}"
    with pytest.raises(CacheRefused, match=r"nested too deeply|does not parse|Postgres refuses"):
        await found(url, sql)


async def test_arguments_read_as_dates_are_told(url: str) -> None:
    """The node refuses 'now' and the like as arguments exactly there."""
    sql = "SELECT id FROM teams WHERE made > $1 AND name = $2 AND id = $3 AND $4::text::date > made"
    assert (await found(url, sql)).clock_parameters == (1, 4)


@pytest.mark.parametrize(
    "text", ["now", "NOW", " today 10:00", "tomorrow", "yesterday", "'now'", "{now}", "[now,]"]
)
def test_words_relative_to_now_read_the_clock(text: str) -> None:
    """Wherever in the argument they stand."""
    assert reads_clock(text)


@pytest.mark.parametrize("text", ["2026-11-21", "infinity", "epoch", "2026-11-21 10:00 Europe/Berlin", ""])
def test_dates_as_such_do_not_read_the_clock(text: str) -> None:
    """A moment that is written out, in whatever form, is the same tomorrow."""
    assert not reads_clock(text)


async def test_the_connection_is_left_as_it_was(url: str) -> None:
    """Neither a finding nor a refusal leaves a transaction or a setting behind."""
    from cluster.analysis.catalog import analyse  # noqa: PLC0415

    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
    )
    async with connection:
        await analyse(connection, "SELECT id FROM teams WHERE id = $1")
        for sql in ("SELECT now()", "SELECT nothing FROM teams", "SELECT id FROM untracked"):
            with pytest.raises(CacheRefused):
                await analyse(connection, sql)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        shown = await connection.execute(
            "SELECT current_setting('debug_print_rewritten'), current_setting('client_min_messages')"
        )
        assert await shown.fetchall() == [("off", "notice")]
