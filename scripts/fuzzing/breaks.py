"""Defects to plant, so that it is seen that each target would find one: what it is, and how it gets in."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import cluster.access.tenancy
import cluster.doors.grpc.calls
import cluster.doors.resp.conversation
import cluster.peering.messages
import cluster.settings.dsn
import cluster.tokens
import peers.wire
import snapring.keys
from cluster.access.tenancy import Reach
from cluster.config import CacheConfig
from cluster.doors.resp.connection import Connection
from cluster.peering.copies import Copy
from cluster.peering.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Break:
    """A defect that ``target`` must find once ``plant`` has been called."""

    target: str
    what: str
    plant: Callable[[], None]


def _set(where: Any, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(where, name, value)


def _counting(value: bytes | str) -> bytes:
    """Stands in for `cluster.doors.resp.frames.bulk`."""
    raw = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%b\r\n" % (len(raw.decode("utf-8", "ignore")), raw)


def _trusting(reach: Reach, text: bytes) -> bytes:
    """Stands in for `Reach._bare`."""
    return text.removeprefix(b"%b/" % reach.tenant.encode())


def _believing(sharing: Sharing, copy: Copy) -> CacheConfig | None:
    """Stands in for `Sharing._cache`."""
    name = copy.key.partition(b":")[0].decode("latin-1")
    return sharing._node.config.caches.get(name)  # noqa: SLF001 -- it is what is broken


def _careless(one: bytes, other: bytes) -> bool:
    return one[:1] == other[:1]


def _telling(url: str) -> None:
    """Stands in for `cluster.settings.dsn.check`."""
    try:
        cluster.settings.dsn.redact(url)
        cluster.settings.dsn._options(url)  # noqa: SLF001 -- it is what is broken
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from None


BREAKS: Final[Mapping[str, Break]] = {
    "resp-length": Break(
        "resp", "a length counts characters", _set(cluster.doors.resp.conversation, "bulk", _counting)
    ),
    "resp-refuse": Break(
        "resp",
        "a breach of the protocol ends without an error",
        _set(Connection, "_refuse", lambda each, _: each.abort()),
    ),
    "resp-tenant": Break("resp", "a key may name another tenant", _set(Reach, "_bare", _trusting)),
    "keys-tenant": Break("keys", "a key may name another tenant", _set(Reach, "_bare", _trusting)),
    "keys-escape": Break("keys", "arguments are not escaped", _set(snapring.keys, "_escape", str)),
    "tokens-signature": Break(
        "tokens",
        "one byte of a signature is compared",
        _set(cluster.tokens, "hmac", SimpleNamespace(digest=hmac.digest, compare_digest=_careless)),
    ),
    "grpc-decode": Break(
        "grpc",
        "what is no request is not refused as such",
        _set(cluster.doors.grpc.calls, "decoded", lambda kind, data: kind.FromString(data)),
    ),
    "peers-number": Break(
        "peers", "a number may be anything", _set(cluster.peering.messages, "natural", lambda field, _: field)
    ),
    "peers-row": Break("peers", "a row's number may be below 0", _set(peers.wire, "_WHOLE", frozenset())),
    "peers-copy": Break("peers", "a copy's key is taken as it comes", _set(Sharing, "_cache", _believing)),
    "config-secret": Break(
        "config", "a refusal repeats the database's URL", _set(cluster.settings.dsn, "check", _telling)
    ),
}
