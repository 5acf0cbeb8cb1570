"""The commands that work on a database: init, track, untrack, check, explain."""

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from cluster import cli

TABLES = """
CREATE TABLE users (id int PRIMARY KEY, name text, email text, born timestamptz);
CREATE TABLE teams (id int PRIMARY KEY, name text);
CREATE TABLE members (team_id int REFERENCES teams, user_id int REFERENCES users, since date,
                      PRIMARY KEY (team_id, user_id));
CREATE TABLE events (id int, kind text, note text) PARTITION BY LIST (kind);
CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a');
CREATE VIEW mates AS SELECT u.email, m.team_id FROM users u JOIN members m ON m.user_id = u.id;
"""

CACHES = """
[caches.by_email]
sql = "SELECT id, name FROM users WHERE email = $1"
bulk_limit = 50

[caches.mates]
sql = "SELECT email FROM mates WHERE team_id = $1"

[caches.noted]
sql = "SELECT id FROM events_a WHERE note = $1"
depends = ["events_a.kind=$1"]
"""

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Runs the program on a database with tables and three caches."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNAPRING_POSTGRES__URL", database)
    (tmp_path / "snapring.toml").write_text(CACHES)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def answer(program: Program, *words: str) -> list[dict[str, object]]:
    """What a command that succeeds answers in JSON."""
    code, out, err = program(*words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert isinstance(found, list)
    return found


def test_init_says_what_it_found_and_made(program: Program) -> None:
    """Running it again does no harm."""
    assert program("init") == (0, "schema snapring: version 2 (new)\n", "")
    assert program("init") == (0, "schema snapring: version 2 (was 2)\n", "")


def test_init_lets_a_role_run_a_node(program: Program, database: str) -> None:
    """The role can then call what a node calls, and check asks only for SELECT on the tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS cli_reader")
        connection.execute("CREATE ROLE cli_reader LOGIN")
        code, out, _ = program("init", "--role", "cli_reader")
        assert (code, "role cli_reader may run a node" in out) == (0, True)
        program("track", "teams")
        code, out, _ = program("check", "--role", "cli_reader", "--json", "--config", "/dev/null")
        assert [finding["remedy"] for finding in json.loads(out)] == [
            "GRANT SELECT ON public.teams TO cli_reader"
        ]
        connection.execute("DROP OWNED BY cli_reader")
        connection.execute("DROP ROLE cli_reader")


def test_track_without_a_table_tracks_what_the_caches_read(program: Program) -> None:
    """Keys, the columns compared with arguments or named by depends, and the smallest bulk limit."""
    program("init")
    found = {each["table"]: each for each in answer(program, "track")}
    assert {table: (each["columns"], each["bulk_limit"]) for table, each in found.items()} == {
        "public.users": (["id", "email"], 50),
        "public.members": (["team_id", "user_id"], 1000),
        "public.events": (["kind", "note"], 1000),
    }
    assert found["public.users"]["caches"] == ["by_email", "mates"]
    assert program("check") == (0, "nothing is amiss\n", "")


def test_track_leaves_alone_what_already_fits(program: Program) -> None:
    """Tracking again voids what nodes remember, so it is not done without need."""
    program("init")
    assert {each["outcome"] for each in answer(program, "track")} == {"tracked"}
    assert {each["outcome"] for each in answer(program, "track")} == {"unchanged"}
    program("track", "users", "--columns", "id,name", "--bulk-limit", "50")
    again = {each["table"]: each for each in answer(program, "track")}
    assert (again["public.users"]["outcome"], again["public.users"]["columns"]) == (
        "tracked",
        ["id", "name", "email"],
    )
    assert again["public.members"]["outcome"] == "unchanged"


def test_track_mends_what_is_amiss(program: Program, database: str) -> None:
    """A table whose triggers were switched off is not left in peace because its columns fit."""
    program("init")
    program("track")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE users DISABLE TRIGGER ALL")
    assert program("check")[0] == 1
    outcomes = {each["table"]: each["outcome"] for each in answer(program, "track")}
    assert outcomes["public.users"] == "tracked"
    assert program("check") == (0, "nothing is amiss\n", "")


def test_track_takes_tables_columns_and_a_limit(program: Program) -> None:
    """By default the primary-key and foreign-key columns."""
    program("init")
    assert program("track", "users", "members")[1].splitlines() == [
        "tracked public.members (team_id, user_id; bulk limit 1000)",
        "tracked public.users (id; bulk limit 1000)",
    ]
    assert program("track", "users", "--columns", "name, email", "--bulk-limit", "5")[1] == (
        "tracked public.users (name, email; bulk limit 5)\n"
    )
    assert program("untrack", "users") == (0, "untracked users\n", "")


REFUSED = [
    (("track", "nonsense"), 7, 'CAPTURE_REFUSED: relation "nonsense" does not exist'),
    (("track", "users", "--columns", "born"), 7, "CAPTURE_REFUSED: the values of column born"),
    (("track", "users", "--bulk-limit", "0"), 7, "bulk_limit must be at least 1"),
    (("untrack", "users"), 7, "CAPTURE_REFUSED: table public.users is not tracked"),
    (("track", "users", "teams", "--columns", "id"), 2, "--columns is for one TABLE"),
    (("track", "--bulk-limit", "5"), 2, "--bulk-limit is for a named TABLE"),
    (("track", "--config", "/dev/null"), 2, "name a TABLE, or configure"),
    (("explain", "nonsense"), 2, "there is no cache nonsense; configured: by_email, mates, noted"),
    (("explain", "mates"), 1, "cache mates is refused: changes of public."),
]


def test_what_cannot_be_done_is_refused_with_the_reason(program: Program) -> None:
    """One message and a code, no traceback."""
    program("init")
    for words, code, message in REFUSED:
        found, out, err = program(*words)
        assert (words, found, out) == (words, code, "")
        assert message in err


def test_explain_shows_dependencies_and_reasons(program: Program) -> None:
    """What is tracked decides whether an entry depends on rows or on a table."""
    program("init")
    program("track", "users")
    code, out, _ = program("explain", "by_email")
    assert code == 0
    assert "every change of public.users" in out
    assert "column email is not tracked" in out
    program("track")
    code, out, _ = program("explain", "by_email")
    assert (code, "changes of public.users where email = $1" in out) == (0, True)
    explained = json.loads(program("explain", "noted", "--json")[1])
    assert explained["found_by"] == "depends"
    assert [(each["table"], each["column"]) for each in explained["dependencies"]] == [
        ("public.events", "kind")
    ]


def test_explain_answers_a_refusal_in_json(program: Program) -> None:
    """Programs get the reason too."""
    program("init")
    code, out, err = program("explain", "clock", "--caches.clock.sql", "SELECT now()", "--json")
    assert (code, err.startswith("snapring: cache clock is refused: ")) == (1, True)
    assert "now" in json.loads(out)["refused"]


def test_track_names_every_cache_whose_sql_is_wrong(program: Program) -> None:
    """Before anything is tracked."""
    program("init")
    code, _, err = program("track", "--caches.a.sql", "SELECT nonsense", "--caches.b.sql", "SELEC", "--caches.c.sql", "DELETE FROM users")  # fmt: skip
    assert code == 2
    assert "caches.a.sql: Postgres refuses the query" in err
    assert "caches.b.sql: the SQL does not parse" in err
    assert "caches.c.sql: a cache is one SELECT, this is DELETE" in err
    assert json.loads(program("track", "teams", "--json")[1])[0]["table"] == "public.teams"


def test_commands_before_init_say_so(program: Program) -> None:
    """The first thing a newcomer forgets."""
    for words in (("track",), ("track", "users"), ("untrack", "users")):
        code, _, err = program(*words)
        assert (code, "run 'snapring init'" in err) == (7, True)
    code, out, _ = program("check")
    assert (code, out) == (1, "error: the schema snapring is not installed\n    snapring init\n")


def test_check_finds_caches_that_would_be_refused(program: Program) -> None:
    """Each with the command that mends it."""
    program("init")
    program("track", "users", "members", "events")
    code, out, _ = program(
        "check", "--caches.clock.sql", "SELECT now()", "--caches.t.sql", "TABLE teams", "--json"
    )
    findings = {finding["problem"].split(":")[0]: finding for finding in json.loads(out)}
    assert code == 1
    assert findings["cache t is refused"]["remedy"] == "snapring track"
    assert findings["cache clock is refused"]["remedy"] == "change caches.clock.sql"


def test_check_at_a_terminal_is_a_table(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row for each finding."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    lines = program("check")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["severity", "error"]


def test_an_unreachable_database_is_a_message(program: Program) -> None:
    """It names the database, without the password."""
    code, out, err = program("check", "--postgres.url", "postgresql://app:hunter2@127.0.0.1:1/app")
    assert (code, out) == (3, "")
    assert err.startswith("snapring: UNAVAILABLE: cannot connect to postgresql://app:***@127.0.0.1:1/app: ")
    assert "Connection refused" in err
    assert "hunter2" not in err


def test_a_role_that_may_not_connect_is_a_message(program: Program, database: str) -> None:
    """Wrong credentials are said as Postgres says them."""
    code, out, err = program("check", "--postgres.url", database.replace("postgres@", "nobody@", 1))
    assert (code, out) == (3, "")
    assert 'role "nobody" does not exist' in err
