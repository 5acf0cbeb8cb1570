"""``snapring get KEY…``: values, and as of which snapshot they are true."""

import json
import sys
from typing import Any

from rich.console import Console

from cluster.commands import reach
from cluster.commands.outcomes import MISSING, OK
from cluster.commands.run import CallError, Run, print_line
from cluster.commands.values import for_people, for_programs, is_there
from snapring import Client, Reply


def run(run: Run) -> int:
    """Print each value, a line of JSON each for programs: code 1 if one is not there. Several are all as of one snapshot."""
    keys: list[str] = run.arguments.keys
    if run.arguments.raw and len(keys) != 1:
        raise CallError(
            "--raw takes one key: nothing tells where the bytes of one end and those of the next begin"
        )
    with reach.client(run) as client:
        found = _read(run, client, keys)
    for key, reply in found.items():
        _print(run, key, reply)
    return OK if all(map(is_there, found.values())) else MISSING


def demanded(run: Run) -> dict[str, Any]:
    """The consistency that the call asks for, as arguments of the client."""
    asked = run.arguments
    return {"at_least": asked.at_least, "exactly": asked.exactly, "strong": asked.strong}


def _read(run: Run, client: Client, keys: list[str]) -> dict[str, Reply]:
    if len(keys) > 1:
        return client.get_many(keys, **demanded(run))
    return {keys[0]: client.get(keys[0], raw=run.arguments.raw, **demanded(run))}


def _print(run: Run, key: str, reply: Reply) -> None:
    if run.arguments.raw:
        sys.stdout.buffer.write(reply.value or b"")
    elif run.terminal:
        Console().print(for_people(key, reply))
    else:
        print_line(json.dumps(for_programs(key, reply), ensure_ascii=False))
