"""The program ``snapring``: its arguments, its commands, and what its failures look like.

What the exit codes mean is in `cluster.commands.outcomes`. An expected failure is a message on standard error that says
what to do, never a traceback.
"""

import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import psycopg

from cluster.commands.outcomes import FAILED, INTERRUPTED, OK, USAGE, code_of, next_step
from cluster.commands.run import CallError, Run, complain
from cluster.grammar import parser
from cluster.settings.load import Surroundings
from cluster.settings.sources import CONFIG_VARIABLE
from snapring.errors import ConfigInvalid, SnapringError

_SETTING_FLAG: Final = re.compile(r"--([A-Za-z_]+(?:\.[^.=\s]+)+)(?:=(.*))?", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except CallError as error:
        complain(str(error))
        return USAGE
    except SnapringError as error:
        return _refused(error)
    except psycopg.Error as error:
        complain(_database_failure(error))
    except BrokenPipeError:
        # Whoever read the answer has seen enough; Python must not flush what is left into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        # argparse has printed its help or what is wrong with the call.
        return stop.code if isinstance(stop.code, int) else OK
    return FAILED


def _run(words: list[str]) -> int:
    flags, rest = _split_settings(words)
    arguments = parser().parse_args(rest)
    file = getattr(arguments, "config", None) or os.environ.get(CONFIG_VARIABLE)
    run = Run(
        arguments=arguments,
        file=Path(file) if file else None,
        flags=flags,
        surroundings=Surroundings(
            environment=os.environ, host_name=socket.gethostname(), random_bytes=secrets.token_bytes
        ),
        json=getattr(arguments, "json", False),
    )
    module, _, function = arguments.target.partition(":")
    command: Callable[[Run], int] = getattr(import_module(module), function)
    code = command(run)
    sys.stdout.flush()
    return code


def _split_settings(words: list[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """The ``--section.key VALUE`` pairs in ``words``, and the words that are none of them."""
    flags: list[tuple[str, str]] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        found = _SETTING_FLAG.fullmatch(word)
        if found is None:
            rest.append(word)
            if word == "--":
                rest.extend(left)
            continue
        value = found[2] if found[2] is not None else next(left, None)
        if value is None:
            raise ConfigInvalid([f"{word}: needs a value: {word}=VALUE"])
        flags.append((found[1], value))
    return tuple(flags), rest


def _refused(error: SnapringError) -> int:
    if isinstance(error, ConfigInvalid):
        count = len(error.problems)
        complain(f"the configuration has {count} problem{'s' if count > 1 else ''}:")
        for problem in error.problems:
            sys.stderr.write(f"  {problem}\n")
    else:
        complain(f"{error.code}: {error}")
    if (step := next_step(error)) is not None:
        complain(step)
    return code_of(error)


def _database_failure(error: psycopg.Error) -> str:
    message = str(error).strip().splitlines()
    first = message[0] if message else type(error).__name__
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"the database refused: {first}{state}"
