"""``depends`` in a cache's configuration takes the place of what is found."""

from collections.abc import Iterator

import pytest

from dependency_schema import analysed_database, found, grains
from servers import Server
from snapring.errors import CacheRefused

SQL = "SELECT t.name, m.role FROM teams t JOIN members m ON m.team_id = t.id WHERE m.role = $1 AND t.id = $2"


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """A database with the schema of `dependency_schema`."""
    with analysed_database(server) as found_url:
        yield found_url


@pytest.mark.parametrize(
    ("depends", "expected"),
    [
        (["teams"], {"teams"}),
        (["public.teams", "members.team_id=$2"], {"teams", "members.team_id=$2"}),
        (['"teams" . "id" = $2'], {"teams.id=$2"}),
        (["TEAMS.ID=$2"], {"teams.id=$2"}),
        (["users"], {"users"}),
        (["events_2.id=$2"], {"events.id=$2"}),
    ],
)
async def test_what_is_said_takes_the_place_of_what_is_found(
    url: str, depends: list[str], expected: set[str]
) -> None:
    """Tables, and columns that equal a parameter; a partition is its root."""
    assert await grains(url, SQL, depends) == expected


@pytest.mark.parametrize(
    ("depends", "reason"),
    [
        ([], "names no table"),
        (["teams where"], "neither table nor"),
        (["teams.id="], "neither table nor"),
        (["a.b.c"], "neither table nor"),
        (["id=$1"], "neither table nor"),
        (["nowhere"], "no table nowhere"),
        (["paying"], "name the tables that it reads"),
        (["untracked"], "snapring track public.untracked"),
        (["members.nothing=$2"], "no column nothing"),
        (["members.role=$1"], "role is not tracked"),
        (["teams.price=$2"], "cannot be told apart"),
        (["teams.id=$3"], "2 parameter"),
        (["teams.id=$1"], "another type"),
    ],
)
async def test_what_the_catalog_does_not_have_is_refused(url: str, depends: list[str], reason: str) -> None:
    """Each item is held against the catalog and the query's parameters."""
    with pytest.raises(CacheRefused, match=reason):
        await found(url, SQL, depends)


async def test_a_stable_function_is_taken_when_its_tables_are_told(url: str) -> None:
    """Only the user knows what a function reads."""
    assert await grains(url, "SELECT reads($1) AS n", ["teams"]) == {"teams"}


@pytest.mark.parametrize(
    "sql", ["SELECT random()", "SELECT now()", "SELECT lucky($1)", "SELECT id FROM untracked"]
)
async def test_depends_does_not_make_the_inexact_exact(url: str, sql: str) -> None:
    """Volatile functions, the clock and untracked tables are refused all the same."""
    with pytest.raises(CacheRefused):
        await found(url, sql, ["teams"])


async def test_tables_that_are_read_but_left_out_are_noted(url: str) -> None:
    """The explanation warns of what nobody will follow."""
    analysis = await found(url, SQL, ["teams.id=$2"])
    assert analysis.overridden
    assert analysis.notes == ("the query reads public.members, whose changes depends leaves out",)
