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
            "`;zone=a` and `;weight=1` to 100), `dns:///host:7946` (nodes are known by their addresses alone), "
            "`kubernetes:///service.namespace:7946` (a headless service, asked of DNS; SRV weights count where they "
            "differ) or `endpointslice:///service.namespace:7946` (the same, watched through the Kubernetes API, "
            "which knows zones). node.name must be the name that it gives this node. Empty: a node by itself",
        ),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "IP address on which the other nodes are answered. Any other than a loopback one needs peers.cert_file, or "
            "peers.insecure",
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
            "how long another node may say nothing, not even that it is alive, before the next one is asked, in the "
            "end this one's own Postgres connections; at most node.request_timeout. Too small: what a node owns "
            "that stalls for a moment is loaded twice; too big: what a node that hangs owns is answered late",
            least=0.1,
            most=5 * MINUTE_S,
        ),
    )
    discovery_wait_s: float = field(
        default=10.0,
        metadata=setting(
            Unit.DURATION,
            "how long a node that starts waits to learn of the others before it answers anybody. Too small: while "
            "discovery fails, a node that starts loads what others have; too big: it answers late then",
            most=HOUR_S,
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
    breaker_failures: int = field(
        default=5,
        metadata=setting(
            Unit.COUNT,
            "failures of one other node within peers.breaker_window after which it is asked no more. Too small: "
            "one hiccup moves what it owns to others; too big: requests wait for a node that is gone",
            least=1,
            most=100_000,
        ),
    )
    breaker_window_s: float = field(
        default=10.0,
        metadata=setting(
            Unit.DURATION,
            "the window in which these failures are counted. Too small: never enough of them; too big: failures "
            "of different causes add up",
            least=0.1,
            most=HOUR_S,
        ),
    )
    breaker_reset_s: float = field(
        default=1.0,
        metadata=setting(
            Unit.DURATION,
            "time between probes of a node that is asked no more; it grows up to peers.breaker_window while the "
            "node fails again and again. Too small: requests wait for probes; too big: who is back is asked late",
            least=0.01,
            most=10 * MINUTE_S,
        ),
    )
    fallbacks: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most reads at once that this node takes over because other nodes have failed; beyond it, OVERLOADED "
            "with a retry hint. Too small: errors while a node is away; too big: what several nodes owned is "
            "loaded by the rest at once",
            least=1,
            most=1_000_000,
        ),
    )
    max_message_bytes: int = field(
        default=8 * MIB,
        metadata=setting(
            Unit.BYTES,
            "a larger question or answer does not travel: its key is loaded by whoever is asked. The smaller of "
            "two nodes' counts. Too small: large values are kept by nobody else; too big: small answers wait "
            "behind large ones, and memory",
            least=64 * KIB,
            most=256 * MIB,
        ),
    )
    buffer_bytes: int = field(
        default=64 * MIB,
        metadata=setting(
            Unit.BYTES,
            "most bytes that wait to be sent to one other node, beyond node.memory; at least peers.max_message. "
            "Too small: bursts of large values are refused; too big: memory for each node that is slow to read",
            least=64 * KIB,
            most=16 * GIB,
        ),
    )
    queue: int = field(
        default=10_000,
        metadata=setting(
            Unit.COUNT,
            "most questions that wait to be sent to one other node; beyond it the next one is asked. Too small: "
            "bursts are loaded by the wrong node; too big: memory",
            least=1,
            most=1_000_000,
        ),
    )
    max_under_way: int = field(
        default=4096,
        metadata=setting(
            Unit.COUNT,
            "most questions of one other node in work at once; further ones wait there. Too small: slow queries "
            "hold up the rest; too big: one node fills another's load.queue",
            least=1,
            most=1_000_000,
        ),
    )
    max_connections: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most connections of other nodes, each of which needs one; further ones are refused. Too small: "
            "some nodes are answered by nobody; too big: strangers may open as many",
            least=1,
            most=100_000,
        ),
    )
    reconnect_s: float = field(
        default=2.0,
        metadata=setting(
            Unit.DURATION,
            "longest pause between attempts to reach a node that cannot be reached; the first is a fortieth of "
            "it. Too small: needless attempts; too big: who is back is asked late",
            least=0.1,
            most=MINUTE_S,
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
    cert_file: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "this node's certificate chain in PEM, for both ends of a connection: with it nodes speak TLS 1.2 or newer, "
            "and only to nodes. It must be for peers.cert_name",
        ),
    )
    key_file: str = field(
        default="",
        metadata=setting(Unit.TEXT, "the private key of peers.cert_file in PEM, without a passphrase"),
    )
    ca_file: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "CA certificates in PEM, one of which has signed every node's certificate; to replace a CA, both for a while",
        ),
    )
    cert_name: str = field(
        default="{node}",
        metadata=setting(
            Unit.TEXT,
            "the DNS name that the certificate of a node is for, the node's name where it says `{node}`: "
            "`{node}.snapring.default.svc`. Who has another's cannot pass for him",
        ),
    )
    allowed: tuple[str, ...] | None = field(
        default=None,
        metadata=setting(
            Unit.TEXTS,
            "the nodes that are let in with a certificate, by name; a `*` stands for a number. Anybody else whom the CA "
            "has certified, a client for example, is refused",
            least=1,
            absent="the members of a static peers.discovery; else names that differ from this node's in their last number",
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "allow a peers.host that others can reach, without certificates: whoever does reads and "
            "forges every tenant's entries",
        ),
    )
