"""What was found about a cache's query, for people and for programs. Pure."""

from collections.abc import Iterator
from typing import TypedDict

from cluster.analysis.catalog import Analysis
from cluster.dependencies import Dependency


class ExplainedDependency(TypedDict):
    """One dependency. ``grain`` is "key" (the rows with one value) or "table" (all of it)."""

    table: str
    grain: str
    column: str | None
    parameter: int | None
    why: str


class Explained(TypedDict):
    """An analysis as plain values, ready for JSON."""

    cache: str
    found_by: str
    dependencies: list[ExplainedDependency]
    parameters: int
    clock_parameters: list[int]
    columns: list[str]
    notes: list[str]


def as_dict(cache: str, analysis: Analysis) -> Explained:
    """What was found, as plain values."""
    return {
        "cache": cache,
        "found_by": "depends" if analysis.overridden else "analysis",
        "dependencies": [_dependency(each) for each in analysis.dependencies],
        "parameters": analysis.parameters,
        "clock_parameters": list(analysis.clock_parameters),
        "columns": list(analysis.columns),
        "notes": list(_notes(analysis)),
    }


def as_text(cache: str, analysis: Analysis) -> str:
    """What was found, a line for each finding."""
    told = as_dict(cache, analysis)
    parameters = ", ".join(f"${number}" for number in range(1, analysis.parameters + 1)) or "none"
    lines = [
        f"cache {cache}",
        f"  parameters: {parameters}",
        f"  columns: {', '.join(analysis.columns) or 'none'}",
        f"  depends on (from {'depends' if analysis.overridden else 'the SQL'}):",
    ]
    for each in told["dependencies"]:
        lines += [f"    {_what(each)}", f"      because {each['why']}"]
    if not told["dependencies"]:
        lines.append("    nothing: the answer never changes")
    return "\n".join([*lines, *(f"  note: {note}" for note in told["notes"])])


def _dependency(found: Dependency) -> ExplainedDependency:
    return {
        "table": found.table,
        "grain": "table" if found.param is None else "key",
        "column": found.column,
        "parameter": found.param,
        "why": found.reason,
    }


def _what(found: ExplainedDependency) -> str:
    if found["grain"] == "table":
        return f"every change of {found['table']}"
    return f"changes of {found['table']} where {found['column']} = ${found['parameter']}"


def _notes(analysis: Analysis) -> Iterator[str]:
    for number in analysis.clock_parameters:
        yield f"${number} is read as a date or time: arguments such as 'now' and 'today' are refused"
    coarse = [each.table for each in analysis.dependencies if each.param is None]
    if coarse and not analysis.overridden:
        yield f"any change of {', '.join(dict.fromkeys(coarse))} ends every entry of this cache"
    yield from analysis.notes
