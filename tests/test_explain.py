"""What was found about a query, told to people and to programs."""

import json

from cluster.analysis.catalog import Analysis
from cluster.analysis.explain import as_dict, as_text
from cluster.dependencies import Dependency

KEYED = Dependency(
    rel=1, table="public.members", column="team_id", attnum=1, param=1, reason="m.team_id = $1"
)
WHOLE = Dependency(
    rel=2, table="public.users", column=None, attnum=None, param=None, reason="nothing binds u"
)


def analysis(*dependencies: Dependency, overridden: bool = False, notes: tuple[str, ...] = ()) -> Analysis:
    """An analysis with these dependencies."""
    return Analysis(
        dependencies=dependencies,
        parameters=2,
        parameter_types=(23, 1082),
        columns=("id", "name"),
        column_types=(23, 25),
        relations=(1, 2),
        clock_parameters=(2,),
        catalog_version="7",
        overridden=overridden,
        notes=notes,
    )


def test_each_dependency_is_told_with_its_grain_and_its_reason() -> None:
    """A key-grain line names column and parameter, a coarse one the whole table, both say why."""
    text = as_text("members_of_team", analysis(KEYED, WHOLE))
    assert "changes of public.members where team_id = $1\n      because m.team_id = $1" in text
    assert "every change of public.users\n      because nothing binds u" in text
    assert "any change of public.users ends every entry of this cache" in text
    assert "$2 is read as a date or time" in text


def test_the_same_is_told_as_plain_values() -> None:
    """The dict survives JSON unchanged."""
    told = as_dict("members_of_team", analysis(KEYED, WHOLE))
    assert json.loads(json.dumps(told)) == told
    assert told["dependencies"][0] == {
        "table": "public.members",
        "grain": "key",
        "column": "team_id",
        "parameter": 1,
        "why": "m.team_id = $1",
    }
    assert told["dependencies"][1]["grain"] == "table"
    assert told["found_by"] == "analysis"


def test_an_override_is_told_with_what_it_leaves_out() -> None:
    """The reader sees that nobody checked, and which tables are not followed."""
    told = analysis(KEYED, overridden=True, notes=("the query reads public.users",))
    assert "depends on (from depends)" in as_text("x", told)
    assert "note: the query reads public.users" in as_text("x", told)
    assert as_dict("x", told)["found_by"] == "depends"


def test_an_answer_that_never_changes_is_told() -> None:
    """A query without tables depends on nothing."""
    assert "nothing: the answer never changes" in as_text("x", analysis())
