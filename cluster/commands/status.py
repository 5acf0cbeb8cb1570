"""``snapring status``: how every node of the cluster fares, once or, with ``--watch``, live."""

import asyncio
import sys
from contextlib import nullcontext
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster import overview
from cluster.asking import Introduction
from cluster.commands import reach
from cluster.commands.outcomes import FOUND, OK
from cluster.commands.run import Run, print_json
from cluster.survey import Found, survey
from snapring.errors import SnapringError

_WITHIN_S: Final = 2.0
_PERIOD_S: Final = 1.0
_PIPED_COLUMNS: Final = 200


def run(run: Run) -> int:
    """Print a row a node and what is wrong: code 1 if anything is. Raises as `survey` does."""
    doors, by = reach.doors(run), reach.introduction(run)
    if run.arguments.watch:
        return asyncio.run(_watch(run, doors, by))
    nodes = asyncio.run(survey(doors, within_s=_WITHIN_S, by=by))
    if run.json:
        print_json(as_json(nodes))
    else:
        _console().print(shown(nodes))
    return FOUND if any(overview.problems(nodes)) else OK


def as_json(nodes: list[Found]) -> object:
    """The survey for programs: every field of INFO, as text."""
    return {
        "nodes": [
            {"name": found.name, "door": found.door, "error": found.error or None, "info": found.info}
            for found in nodes
        ],
        "problems": list(overview.problems(nodes)),
    }


async def _watch(run: Run, doors: list[str], by: Introduction) -> int:
    """Once a second until interrupted. Where nobody is at the terminal, one table after the other."""
    console = _console()
    live = Live(console=console, auto_refresh=False) if run.terminal else None
    with live or nullcontext():
        while True:
            try:
                nodes = await survey(doors, within_s=_WITHIN_S, by=by)
            except SnapringError as error:
                nodes = [Found(name="", door=", ".join(doors), error=str(error))]
            if live is not None:
                live.update(shown(nodes), refresh=True)
            elif run.json:
                print_json(as_json(nodes))
            else:
                console.print(shown(nodes))
            sys.stdout.flush()
            await asyncio.sleep(_PERIOD_S)


def shown(nodes: list[Found]) -> Group:
    """The survey for people: the table, and under it what is wrong or that nothing is."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in overview.COLUMNS:
        table.add_column(column, overflow="fold")
    for found in nodes:
        table.add_row(*map(Text, overview.row(found)), style="red" if found.error else None)
    wrong = [Text(problem, style="yellow") for problem in overview.problems(nodes)]
    return Group(table, *([] if wrong else [Text(overview.agreement(nodes), style="green")]), *wrong)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_COLUMNS)
