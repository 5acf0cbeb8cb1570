"""The commands for people who use a cluster: they read, write, list, watch and measure."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Final

from cluster.grammar.reaching import (
    add_consistency,
    add_credentials,
    add_file,
    add_nodes,
    add_timeout,
    duration,
    within,
)

_MAX_VERSION: Final = 2**63 - 1
_MAX_LIMIT: Final = 1_000_000
_MAX_CALLERS: Final = 256
_MAX_BENCH_S: Final = 60.0
_A_MINUTE_S: Final = 60.0
_KEY: Final = "tenant/cache:arg:arg; the tenant may be left out"

Command = Callable[[str, str, str], ArgumentParser]


def add(command: Command) -> None:
    """All of them."""
    _get(command("get", "get:run", "read keys, several as of one snapshot; code 1 if one is not there"))
    _put(command("put", "write:put", "put a value under a key of a store cache"))
    _delete(command("del", "write:delete", "delete keys of a store cache, all or none"))
    _token(command("token", "token:run", "print a token of now, to read at least or exactly there"))
    _keys(
        command(
            "keys",
            "keys:run",
            "list the keys of a store cache, or those in memory of a cache of rows; code 1 if there are none",
        )
    )
    _caches(command("caches", "caches:run", "list the caches, and how much of each is in memory"))
    _watch(command("watch", "watch:run", "show the keys that a node lets go of, as it happens"))
    _bench(command("bench", "bench:run", "ask for keys for a while: gets a second, latencies"))
    completion = command(
        "completion", "completion:run", "print a script for completion: source <(snapring completion bash)"
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help="zsh as for bash; fish: … | source"
    )


def _get(get: ArgumentParser) -> None:
    get.add_argument("keys", metavar="KEY", nargs="+", help=_KEY)
    get.add_argument("--raw", action="store_true", help="the value's bytes as they are, of one key")
    add_consistency(get)
    _reach(get)


def _put(put: ArgumentParser) -> None:
    put.add_argument("key", metavar="KEY", help="cache:arg of a store cache")
    put.add_argument("value", metavar="VALUE", nargs="?", help="its text; - reads standard input")
    add_file(put, "--file", "take the value from this file")
    _version(put)
    put.add_argument("--new", action="store_true", help="only if the key is not there")
    _reach(put)


def _delete(delete: ArgumentParser) -> None:
    delete.add_argument("keys", metavar="KEY", nargs="+", help="cache:arg of a store cache")
    _version(delete)
    _reach(delete)


def _version(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--if-version",
        metavar="N",
        type=within(0, _MAX_VERSION),
        help="only if the key is at this version, 0 for none; else code 5",
    )


def _token(token: ArgumentParser) -> None:
    one = token.add_mutually_exclusive_group()
    one.add_argument("--strong", action="store_true", help="of a snapshot taken after the call")
    one.add_argument(
        "--ticket",
        metavar="XID",
        type=within(1, _MAX_VERSION),
        help="of the transaction with this pg_current_xact_id(), for --at-least",
    )
    _reach(token)


def _keys(keys: ArgumentParser) -> None:
    keys.add_argument("prefix", metavar="PREFIX", help="what the keys begin with: pages: or user:4")
    keys.add_argument("--after", metavar="KEY", help="begin after this key")
    keys.add_argument(
        "--limit",
        metavar="N",
        type=within(1, _MAX_LIMIT),
        default=1000,
        help="at most so many (default: 1000)",
    )
    keys.add_argument(
        "--here", action="store_true", help="of a cache of rows: in the memory of the nodes named, not of all"
    )
    add_consistency(keys)
    _reach(keys)


def _caches(caches: ArgumentParser) -> None:
    _reach(caches)


def _watch(watch: ArgumentParser) -> None:
    watch.add_argument(
        "prefixes",
        metavar="PREFIX",
        nargs="*",
        help="only keys that begin so, such as user: or, of a tenant, acme/user:",
    )
    watch.add_argument(
        "--grpc",
        metavar="HOST:PORT",
        action="append",
        help="the node's gRPC door (again for more nodes, each of which has a memory of its own; default: grpc.host and"
        " grpc.port)",
    )
    watch.add_argument(
        "--for", dest="duration", metavar="DURATION", type=duration, help="end after this long, such as 10s"
    )
    watch.add_argument(
        "--count",
        metavar="N",
        type=within(1, _MAX_LIMIT),
        help="end after so many keys; code 1 if --for is over before",
    )
    watch.add_argument(
        "--reconnect",
        metavar="DURATION",
        type=duration,
        default=_A_MINUTE_S,
        help="seek a connection that was lost for this long, then code 3 (default: 1m)",
    )
    watch.add_argument("--heartbeats", action="store_true", help="with JSON: events without keys too")
    add_credentials(watch)
    add_timeout(watch)


def _bench(bench: ArgumentParser) -> None:
    bench.add_argument("keys", metavar="KEY", nargs="+", help="what to ask for, in turn")
    bench.add_argument(
        "--for",
        dest="duration",
        metavar="DURATION",
        type=_a_minute,
        default=5.0,
        help="(default: 5s; at most 1m)",
    )
    bench.add_argument(
        "--callers",
        metavar="N",
        type=within(1, _MAX_CALLERS),
        default=16,
        help=f"so many ask at once, each through a connection of its own (default: 16; at most {_MAX_CALLERS})",
    )
    add_consistency(bench)
    _reach(bench)


def _a_minute(text: str) -> float:
    seconds = duration(text)
    if seconds > _MAX_BENCH_S:
        raise ArgumentTypeError(f"{text}: a bench lasts 1m at most")
    return seconds


def _reach(parser: ArgumentParser) -> None:
    add_nodes(parser)
    add_credentials(parser)
    add_timeout(parser)
