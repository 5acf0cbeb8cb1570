"""``snapring status``: how every node of the cluster fares, once or, with ``--watch``, live."""

import asyncio
import ssl
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster import overview
from cluster.asking import Introduction, parse_door, show_door
from cluster.commands.run import FOUND, OK, CallError, Run, print_json
from cluster.survey import Found, survey
from snapring.errors import Unavailable

_WITHIN_S: Final = 2.0
_PERIOD_S: Final = 1.0
_PIPED_COLUMNS: Final = 200
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where a node listens, not we


def run(run: Run) -> int:
    """Print a row a node and what is wrong: code 1 if anything is. Raises `Unavailable` if no node answers."""
    doors, by = _doors(run), _introduction(run)
    if run.arguments.watch:
        return asyncio.run(_watch(run, doors, by))
    nodes = asyncio.run(survey(doors, within_s=_WITHIN_S, by=by))
    if run.json:
        print_json(as_json(nodes))
    else:
        _console().print(_shown(nodes))
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


def _doors(run: Run) -> list[str]:
    """Whom to ask first: the nodes named in the call, else the one that the settings describe."""
    doors: list[str] = run.arguments.node or []
    for door in doors:
        try:
            parse_door(door)
        except ValueError as error:
            raise CallError(f"--node: {error}") from error
    if doors:
        return doors
    config = run.settings(preset=[("postgres.url", "postgresql://none/")]).config.resp
    return [show_door(_ANYWHERE.get(config.host, config.host), config.port)]


def _introduction(run: Run) -> Introduction:
    """The key and the authority that the call names, in files: what is typed is seen by everybody."""
    key_file, ca_file = run.arguments.key_file, run.arguments.ca_file
    key = Path(key_file).read_text(encoding="ascii", errors="replace").strip() if key_file else None
    try:
        return Introduction(key=key, tls=ssl.create_default_context(cafile=ca_file) if ca_file else None)
    except ssl.SSLError as error:
        raise CallError(f"--ca-file: {ca_file} holds no CA certificates") from error


async def _watch(run: Run, doors: list[str], by: Introduction) -> int:
    """Once a second until interrupted. Where nobody is at the terminal, one table after the other."""
    console = _console()
    live = Live(console=console, auto_refresh=False) if run.terminal else None
    with live or nullcontext():
        while True:
            try:
                nodes = await survey(doors, within_s=_WITHIN_S, by=by)
            except Unavailable as error:
                nodes = [Found(name="", door=", ".join(doors), error=str(error))]
            if live is not None:
                live.update(_shown(nodes), refresh=True)
            elif run.json:
                print_json(as_json(nodes))
            else:
                console.print(_shown(nodes))
            sys.stdout.flush()
            await asyncio.sleep(_PERIOD_S)


def _shown(nodes: list[Found]) -> Group:
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
