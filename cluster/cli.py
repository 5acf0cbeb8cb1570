"""The program ``snapring``: its arguments, its commands, and what its failures look like.

Exit codes: 0 all is well; 1 it failed, or found problems; 2 the call or the configuration is wrong;
130 interrupted. An expected failure is a message on standard error, never a traceback.
"""

import os
import re
import secrets
import socket
import sys
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psycopg

from cluster.commands.run import FOUND, INTERRUPTED, OK, USAGE, CallError, Run, complain
from cluster.settings.load import DEFAULT_FILE, Surroundings
from cluster.settings.sources import CONFIG_VARIABLE
from snapring.errors import ConfigInvalid, SnapringError

_SETTING_FLAG: Final = re.compile(r"--([A-Za-z_]+(?:\.[^.=\s]+)+)(?:=(.*))?", re.DOTALL)

_ABOUT: Final = "A snapshot-consistent read cache for PostgreSQL."

_SETTINGS: Final = """\
settings:
  Every setting can be given in a TOML file, in the environment and as a flag; the
  later one wins. One rule names it everywhere:

    snapring.toml   [feed]                          [caches.user_by_id]
                    poll_period = "25ms"            ttl = "5m"
    environment     SNAPRING_FEED__POLL_PERIOD      SNAPRING_CACHES__USER_BY_ID__TTL
    flag            --feed.poll_period 25ms         --caches.user_by_id.ttl 5m

  "snapring config" prints all of them, and where each came from.

exit codes:
  0 all is well   1 failed, or found problems   2 wrong call or configuration
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except ConfigInvalid as error:
        count = len(error.problems)
        complain(f"the configuration has {count} problem{'s' if count > 1 else ''}:")
        for problem in error.problems:
            sys.stderr.write(f"  {problem}\n")
        return USAGE
    except CallError as error:
        complain(str(error))
        return USAGE
    except SnapringError as error:
        complain(f"{error.code}: {error}")
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
    return FOUND


def _run(words: list[str]) -> int:
    flags, rest = _split_settings(words)
    arguments = _parser().parse_args(rest)
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


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="snapring",
        usage="snapring COMMAND [--config FILE] [--section.key VALUE ...] ...",
        description=_ABOUT,
        epilog=_SETTINGS,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"snapring {version('snapring-node')}")
    _share(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="snapring", required=True)

    def command(name: str, target: str, what: str) -> ArgumentParser:
        added = commands.add_parser(name, help=what, description=_sentence(what), allow_abbrev=False)
        added.set_defaults(target=f"cluster.commands.{target}")
        _share(added)
        return added

    command("node", "node:node", "run one node")
    _up(command("up", "node:up", "run a node on a development database, by default an embedded one"))
    init = command("init", "capture:init", "install the schema snapring, bring it up to date, or mend it")
    init.add_argument("--role", help="let this role run a node")
    _track(
        command("track", "capture:track", "put tables under capture; without TABLE, those the caches read")
    )
    untrack = command("untrack", "capture:untrack", "take tables off capture")
    untrack.add_argument("tables", metavar="TABLE", nargs="+", help="as in SQL: users, sales.orders")
    check = command("check", "check:run", "find what would break exactness, and how to mend it")
    check.add_argument("--role", help="the role that nodes connect as (default: that of postgres.url)")
    explain = command("explain", "explain:run", "show what a cache's entries depend on, and why")
    explain.add_argument("cache", metavar="CACHE", help="the cache's name")
    _status(command("status", "status:run", "show how every node of the cluster fares"))
    _key(command("key", "key:new", "make an API key for access.keys_file: snapring key new"))
    config = command("config", "config:run", "print every setting in force and where it came from")
    config.add_argument("--table", action="store_true", help=SUPPRESS)
    return parser


def _share(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=SUPPRESS,
        help=f"the TOML file (default: ${CONFIG_VARIABLE}, else ./{DEFAULT_FILE})",
    )
    parser.add_argument("--json", action="store_true", default=SUPPRESS, help="answer in JSON")


def _up(up: ArgumentParser) -> None:
    up.add_argument("--database", metavar="URL", help="use this database in place of an embedded one")
    up.add_argument(
        "--nodes",
        metavar="N",
        type=int,
        choices=range(1, 10),
        default=1,
        help="run N nodes that act as one, each a process (1 to 9, default 1)",
    )


def _status(status: ArgumentParser) -> None:
    status.add_argument(
        "--node",
        metavar="HOST:PORT",
        action="append",
        help="ask this RESP door first (again for more; default: the one of resp.host and resp.port)",
    )
    status.add_argument(
        "--key-file", metavar="FILE", help="an API key of role admin, where nodes ask for keys"
    )
    status.add_argument(
        "--ca-file", metavar="FILE", help="ask under TLS; this authority has certified the doors"
    )
    status.add_argument("--watch", action="store_true", help="show it anew every second until Ctrl-C")


def _key(key: ArgumentParser) -> None:
    key.add_argument(
        "what", metavar="new", choices=("new",), help="show a new key once, and its line for the file"
    )
    key.add_argument("--name", required=True, help="whose it is; the same name again replaces a key")
    key.add_argument("--tenant", required=True, help="the tenant whose entries it reaches, and no others")
    key.add_argument("--role", choices=("read", "write", "admin"), default="read", help="(default: read)")


def _track(track: ArgumentParser) -> None:
    track.add_argument("tables", metavar="TABLE", nargs="*", help="as in SQL: users, sales.orders")
    track.add_argument(
        "--columns",
        metavar="A,B",
        help="columns whose values tell entries apart (default: primary-key and foreign-key columns)",
    )
    track.add_argument(
        "--bulk-limit",
        metavar="N",
        type=int,
        help="a statement that touches more keys than this counts as touching the entire table",
    )


def _sentence(what: str) -> str:
    return f"{what[0].upper()}{what[1:]}."


def _database_failure(error: psycopg.Error) -> str:
    message = str(error).strip().splitlines()
    first = message[0] if message else type(error).__name__
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"the database refused: {first}{state}"
