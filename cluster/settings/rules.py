"""What must hold between settings, besides the bounds of each. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from cluster.config import CacheConfig, NodeConfig, TenantConfig
from cluster.settings.units import format_bytes, format_duration
from snapring.errors import ConfigInvalid

MIN_POLLS_PER_STALENESS: Final = 2
MIN_POLLS_PER_RETENTION: Final = 10

_QUERY_ONLY: Final = {
    field.name: field.default
    for field in fields(CacheConfig)
    if field.name in ("sql", "single", "depends", "max_rows", "encoding", "bulk_limit", "tenant_argument")
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
    yield from _exposed(config, "resp", config.resp.host, insecure=config.resp.insecure)


def _http_host(config: NodeConfig) -> Iterator[Breach]:
    if config.http.port is not None:
        yield from _exposed(config, "http", config.http.host, insecure=config.http.insecure)


def _grpc_host(config: NodeConfig) -> Iterator[Breach]:
    if config.grpc.port is None:
        return
    if not _is_address(config.grpc.host):
        yield Breach("expected an IP address, such as 127.0.0.1, 0.0.0.0 or ::", ("grpc.host",))
    else:
        yield from _exposed(config, "grpc", config.grpc.host, insecure=config.grpc.insecure)


def _exposed(config: NodeConfig, door: str, host: str, *, insecure: bool) -> Iterator[Breach]:
    """A door that others can reach asks for keys and speaks TLS, unless it is written out that it need not."""
    if insecure or _is_loopback(host):
        return
    missing = {"access.keys_file": config.access.keys_file, "tls.cert_file": config.tls.cert_file}
    unset = [name for name, value in missing.items() if not value]
    if unset:
        yield Breach(
            f"others than this machine can reach this address: set {' and '.join(unset)}, use 127.0.0.1, or set"
            f" {door}.insecure = true where the network keeps strangers out",
            (f"{door}.host", f"{door}.insecure", *unset),
        )


def _pairs(config: NodeConfig) -> Iterator[Breach]:
    """Files that are of no use without one another."""
    tls, peers = config.tls, config.peers
    if bool(tls.cert_file) != bool(tls.key_file):
        yield Breach("a certificate and its key go together", ("tls.cert_file", "tls.key_file"))
    if tls.client_ca_file and not tls.cert_file:
        yield Breach("clients show certificates under TLS only: set tls.cert_file", ("tls.client_ca_file",))
    files = {
        "peers.cert_file": peers.cert_file,
        "peers.key_file": peers.key_file,
        "peers.ca_file": peers.ca_file,
    }
    if any(files.values()) and not all(files.values()):
        unset = [name for name, value in files.items() if not value]
        yield Breach(f"nodes know each other by all of {', '.join(files)}, or none", (*unset, *files))


def _nameless(config: NodeConfig) -> Iterator[Breach]:
    """With certificates, it must be clear which nodes are let in."""
    peers = config.peers
    if not (peers.cert_file and peers.discovery) or peers.allowed is not None:
        return
    if not peers.discovery.startswith("static:") and not config.name[-1:].isdigit():
        yield Breach(
            f"{config.name} does not end in a number that tells it from the other nodes: say who is let in",
            ("peers.allowed", "node.name"),
        )


def _tenancy(config: NodeConfig) -> Iterator[Breach]:
    """What tells tenants apart needs credentials: a client without them can name any."""
    if config.access.keys_file:
        return
    named = [f"tenants.{name}" for name in config.tenants]
    named += ["quotas"] if config.quotas != TenantConfig() else []
    named += [f"caches.{name}.tenants" for name, cache in config.caches.items() if cache.tenants is not None]
    for name in named:
        yield Breach(
            "tenants are told apart by credentials: set access.keys_file", (name, "access.keys_file")
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
    elif not (config.peers.insecure or config.peers.cert_file or _is_loopback(config.peers.host)):
        yield Breach(
            "others than this machine can reach this address: set peers.cert_file, peers.key_file and peers.ca_file,"
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


def _traces(config: NodeConfig) -> Iterator[Breach]:
    if not config.traces.endpoint:
        return
    try:
        parts = urlsplit(config.traces.endpoint)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        yield Breach("must be a URL such as http://collector:4318", ("traces.endpoint",))
    elif parts.username is not None:
        yield Breach(
            "must not hold a password: OTEL_EXPORTER_OTLP_HEADERS in the environment takes credentials",
            ("traces.endpoint",),
        )


_RULES: Final[tuple[Callable[[NodeConfig], Iterator[Breach]], ...]] = (
    _shares,
    _log_retention,
    _change_retention,
    _write_timeout,
    _token_wait,
    _host,
    _grpc_host,
    _http_host,
    _pairs,
    _nameless,
    _tenancy,
    _statement_timeout,
    _peers,
    _traces,
)
