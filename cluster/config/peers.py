"""The other nodes: where they are, and how long this one waits for them."""

from dataclasses import dataclass, field

from cluster.settings.units import GIB, HOUR_S, KIB, MIB, MINUTE_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersConfig:
    """How this node finds the others and talks to them."""

    discovery: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "where the nodes are, the same on every node: `static:///node-0=10.0.0.1:7946,…` (after each member "
            "`;zone=a` and `;weight=1` to 100), `dns:///host:7946`, `kubernetes:///service.namespace:7946` (a "
            "headless service, asked of DNS) or `endpointslice:///service.namespace:7946` (the same, watched "
            "through the Kubernetes API). node.name must be the name that it gives this node. Empty: a node by "
            "itself",
        ),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "IP address on which the other nodes are answered. They are neither authenticated nor encrypted in "
            "this version: any other address than a loopback one needs peers.insecure",
        ),
    )
    port: int = field(
        default=7946,
        metadata=setting(
            Unit.COUNT,
            "TCP port for the other nodes, the one that peers.discovery names",
            least=1,
            most=65_535,
        ),
    )
    hop_timeout_s: float = field(
        default=1.0,
        metadata=setting(
            Unit.DURATION,
            "how long another node may take to answer before the next one is asked, in the end this one's own "
            "Postgres connections; at most node.request_timeout. Too small: a slow query of the owner's is run "
            "again here; too big: what a node that hangs owns is answered late",
            least=0.01,
            most=5 * MINUTE_S,
        ),
    )
    handoff_s: float = field(
        default=30.0,
        metadata=setting(
            Unit.DURATION,
            "for how long after a change of membership the previous owner of a key is asked before Postgres. Too "
            "small: what moved is loaded again; too big: needless hops for keys that nobody had",
            most=HOUR_S,
        ),
    )
    handoff_rings: int = field(
        default=4,
        metadata=setting(
            Unit.COUNT,
            "how many changes of membership back owners are asked, within peers.handoff. Too small: what moved "
            "twice in quick succession is loaded again; too big: needless hops for keys that nobody had",
            least=1,
            most=16,
        ),
    )
    copy_rate_bytes: int = field(
        default=32 * MIB,
        metadata=setting(
            Unit.BYTES,
            "how many bytes of entries a second go to one other node, as its backup or on leaving. Too small: a "
            "backup that lacks much; too big: requests wait behind copies",
            least=64 * KIB,
            most=64 * GIB,
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=setting(Unit.FLAG, "allow a peers.host that others can reach, without authentication"),
    )
