"""The commands of those who run a cluster: nodes, capture, checks, keys."""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable

from cluster.grammar.reaching import add_credentials, add_nodes

Command = Callable[[str, str, str], ArgumentParser]


def add(command: Command) -> None:
    """All of them."""
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
    add_nodes(status)
    add_credentials(status)
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
