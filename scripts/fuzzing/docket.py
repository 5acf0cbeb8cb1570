"""What can be fuzzed: whose code it reads with, and what it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One target: ``what`` it throws at whom; the modules whose ways through are followed; what it stands on.

    ``database``: it needs a PostgreSQL. ``apart``: it can also be thrown at a node in a process of its own.
    """

    what: str
    followed: tuple[str, ...]
    database: bool = False
    apart: bool = False


APART: Final = ("scripts.fuzzing.resp_model", "scripts.fuzzing.resp_client")
"""Of a node in another process no ways are seen: those that its client takes stand for them."""

DOCKET: Final[Mapping[str, Entry]] = {
    "resp": Entry(
        what="streams of bytes at the RESP door, open, with keys, and under TLS",
        followed=("cluster.doors.resp", "cluster.access"),
        database=True,
        apart=True,
    ),
    "keys": Entry(
        what="the text of keys, and whose they are",
        followed=("snapring.keys", "cluster.access.tenancy"),
    ),
    "tokens": Entry(
        what="tokens: made, altered, forged, and any text",
        followed=("cluster.tokens", "cluster.snapshots"),
    ),
    "grpc": Entry(
        what="messages, metadata and HTTP/2 frames at the gRPC door",
        followed=("cluster.doors.grpc", "cluster.access"),
        database=True,
    ),
    "peers": Entry(
        what="what nodes tell each other",
        followed=("peers.wire", "peers.flat", "peers.failures", "cluster.peering"),
    ),
    "config": Entry(
        what="snapring.toml, with its tenants and quotas, the environment, and files of API keys",
        followed=("cluster.settings", "cluster.access.keyring", "cluster.access.secret"),
    ),
}
