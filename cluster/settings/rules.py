"""What must hold between settings, besides the bounds of each. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Final

from cluster.config import CacheConfig, NodeConfig
from cluster.settings.units import format_bytes, format_duration
from snapring.errors import ConfigInvalid

MIN_POLLS_PER_STALENESS: Final = 2
MIN_POLLS_PER_RETENTION: Final = 10

_QUERY_ONLY: Final = {
    field.name: field.default
    for field in fields(CacheConfig)
    if field.name in ("sql", "single", "depends", "max_rows", "encoding", "bulk_limit")
}


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that does not hold, and the settings it is ``about``, the one to change first."""

    message: str
    about: tuple[str, ...]


def breaches(config: NodeConfig) -> Iterator[Breach]:
    """Every rule that ``config`` breaks."""
    for rule in _RULES:
        yield from rule(config)
    for cache in config.caches.values():
        yield from _kind(cache)
        yield from _staleness(cache, config.feed.poll_period_s)


def _kind(cache: CacheConfig) -> Iterator[Breach]:
    place = f"caches.{cache.name}"
    if cache.kind == "query":
        if not cache.sql.strip():
            yield Breach(f"a query cache needs its SELECT: write sql in [{place}]", (f"{place}.sql", place))
        return
    for name, default in _QUERY_ONLY.items():
        if getattr(cache, name) != default:
            yield Breach("a store cache has no such setting: remove it, or kind", (f"{place}.{name}",))


def _staleness(cache: CacheConfig, poll_period_s: float) -> Iterator[Breach]:
    least_s = MIN_POLLS_PER_STALENESS * poll_period_s
    if cache.max_staleness_s < least_s:
        yield Breach(
            f"must be at least two poll periods, {format_duration(least_s)}, or hits turn into loads",
            (f"caches.{cache.name}.max_staleness", "feed.poll_period"),
        )


def _shares(config: NodeConfig) -> Iterator[Breach]:
    shares = {cache.name: cache.max_bytes for cache in config.caches.values() if cache.max_bytes}
    total = sum(shares.values())
    if total >= config.memory_bytes:
        yield Breach(
            f"the caches' max_bytes add up to {format_bytes(total)}, which leaves nothing of the node's"
            f" {format_bytes(config.memory_bytes)}: raise node.memory or lower max_bytes of"
            f" {', '.join(shares)}",
            ("node.memory", *(f"caches.{name}.max_bytes" for name in shares)),
        )


def _log_retention(config: NodeConfig) -> Iterator[Breach]:
    if config.feed.log_retention_s < config.load.timeout_s:
        yield Breach(
            f"must be at least load.timeout, {format_duration(config.load.timeout_s)}, or what slow loads"
            " bring is never kept",
            ("feed.log_retention", "load.timeout"),
        )


def _statement_timeout(config: NodeConfig) -> Iterator[Breach]:
    if config.postgres.statement_timeout_s >= config.load.timeout_s:
        yield Breach(
            f"must be below load.timeout, {format_duration(config.load.timeout_s)}, or a slow query looks like"
            " a database that does not answer",
            ("postgres.statement_timeout", "load.timeout"),
        )


def _change_retention(config: NodeConfig) -> Iterator[Breach]:
    least_s = MIN_POLLS_PER_RETENTION * config.feed.poll_period_s
    if config.retention.changes_s < least_s:
        yield Breach(
            f"must be at least ten poll periods, {format_duration(least_s)}, or changes are deleted before"
            " every node has seen them",
            ("retention.changes", "feed.poll_period"),
        )


def _write_timeout(config: NodeConfig) -> Iterator[Breach]:
    if config.write.timeout_s <= config.postgres.statement_timeout_s:
        yield Breach(
            f"must be above postgres.statement_timeout, {format_duration(config.postgres.statement_timeout_s)}, or the"
            " outcome of slow writes is unknown",
            ("write.timeout", "postgres.statement_timeout"),
        )


def _token_wait(config: NodeConfig) -> Iterator[Breach]:
    if config.token_wait_s > config.request_timeout_s:
        yield Breach(
            f"must be at most node.request_timeout, {format_duration(config.request_timeout_s)}",
            ("node.token_wait", "node.request_timeout"),
        )


def _host(config: NodeConfig) -> Iterator[Breach]:
    if not config.resp.insecure and not _is_loopback(config.resp.host):
        yield _reachable("resp")


def _grpc_host(config: NodeConfig) -> Iterator[Breach]:
    if config.grpc.port is None:
        return
    if not _is_address(config.grpc.host):
        yield Breach("expected an IP address, such as 127.0.0.1, 0.0.0.0 or ::", ("grpc.host",))
    elif not config.grpc.insecure and not _is_loopback(config.grpc.host):
        yield _reachable("grpc")


def _reachable(door: str) -> Breach:
    return Breach(
        "others than this machine can reach this address, and the door does not authenticate them:"
        f" use 127.0.0.1, or set {door}.insecure = true where the network keeps strangers out",
        (f"{door}.host", f"{door}.insecure"),
    )


def _peers(config: NodeConfig) -> Iterator[Breach]:
    """What a node among others must say; a node by itself says nothing of it."""
    if config.peers.discovery:
        yield from _members(config)
        yield from _peers_host(config)
        yield from _hop_timeout(config)
        yield from _buffer(config)


def _members(config: NodeConfig) -> Iterator[Breach]:
    from peers.discovery.forms import HostForm, StaticForm, parse  # noqa: PLC0415 -- a node by itself needs no DNS

    try:
        form = parse(config.peers.discovery)
    except ConfigInvalid as error:
        for problem in error.problems:
            yield Breach(problem, ("peers.discovery",))
        return
    if isinstance(form, StaticForm):
        names = [member.name for member in form.members]
        if config.name not in names:
            yield Breach(
                f"{config.name} is not among the members of peers.discovery: {', '.join(names)}",
                ("node.name", "peers.discovery"),
            )
    if isinstance(form, HostForm) and not _is_address(config.name):
        yield Breach(
            f"{config.name} is not an IPv4 address, and dns:/// knows nodes by nothing else: set it to the address"
            " under which the others find this node, or give names with static:///NAME=ADDRESS:PORT,… or with"
            " kubernetes:///, whose SRV records have them",
            ("node.name", "peers.discovery"),
        )


def _peers_host(config: NodeConfig) -> Iterator[Breach]:
    about = ("peers.host", "peers.insecure")
    if not _is_address(config.peers.host):
        yield Breach("expected an IP address, such as 127.0.0.1, 0.0.0.0 or ::", about)
    elif not config.peers.insecure and not _is_loopback(config.peers.host):
        yield Breach(
            "others than this machine can reach this address, and nodes do not authenticate one another:"
            " use 127.0.0.1, or set peers.insecure = true where the network keeps strangers out",
            about,
        )


def _hop_timeout(config: NodeConfig) -> Iterator[Breach]:
    if config.peers.hop_timeout_s > config.request_timeout_s:
        yield Breach(
            f"must be at most node.request_timeout, {format_duration(config.request_timeout_s)}, or no time is"
            " left for anybody but the first node asked",
            ("peers.hop_timeout", "node.request_timeout"),
        )


def _buffer(config: NodeConfig) -> Iterator[Breach]:
    least = config.peers.max_message_bytes
    if config.peers.buffer_bytes < least:
        yield Breach(
            f"must be at least peers.max_message, {format_bytes(least)}, or a large value could never wait",
            ("peers.buffer", "peers.max_message"),
        )


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


_RULES: Final[tuple[Callable[[NodeConfig], Iterator[Breach]], ...]] = (
    _shares,
    _log_retention,
    _change_retention,
    _write_timeout,
    _token_wait,
    _host,
    _grpc_host,
    _statement_timeout,
    _peers,
)
