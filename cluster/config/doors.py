"""The doors: where clients come in, and what each may claim."""

from dataclasses import dataclass, field

from cluster.settings.units import DAY_S, GIB, HOUR_S, KIB, MIB, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RespConfig:
    """The RESP door."""

    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "address to listen on. Any other than a loopback one needs access.keys_file and tls.cert_file, or "
            "resp.insecure",
        ),
    )
    port: int = field(default=7379, metadata=setting(Unit.COUNT, "TCP port; 0 takes a free one", most=65_535))
    insecure: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "allow a resp.host that others can reach without credentials, or without TLS, where keys and "
            "values can be read on the way",
        ),
    )
    max_request_bytes: int = field(
        default=MIB,
        metadata=setting(
            Unit.BYTES,
            "a larger request closes its connection with an error. Too small: long MGETs fail; too big: "
            "memory that one client can claim",
            least=4 * KIB,
            most=512 * MIB,
        ),
    )
    max_args: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most words in one command; more close the connection. Too small: long MGETs fail; too big: "
            "one command holds the loop",
            least=8,
            most=1_000_000,
        ),
    )
    max_pipeline: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most commands of one connection in work at once; the rest waits unread. Too small: pipelines "
            "stall; too big: one client fills the load queue",
            least=1,
            most=1_000_000,
        ),
    )
    max_connections: int = field(
        default=10_000,
        metadata=setting(
            Unit.COUNT,
            "most client connections; further ones are closed with an error. Too big: more than the "
            "process may open files",
            least=1,
            most=1_000_000,
        ),
    )
    write_buffer_bytes: int = field(
        default=8 * MIB,
        metadata=setting(
            Unit.BYTES,
            "replies that a client has not read yet; above it, its commands are not read either. Too "
            "small: large values stall; too big: slow readers hold memory beyond node.memory",
            least=16 * KIB,
            most=GIB,
        ),
    )
    max_per_address: int | None = field(
        default=None,
        metadata=setting(
            Unit.COUNT,
            "most connections from one IP address; further ones are closed with an error. Too small: clients behind one "
            "proxy shut each other out; `none`: one machine can take every place",
            least=1,
            most=1_000_000,
        ),
    )
    login_timeout_s: float = field(
        default=10.0,
        metadata=setting(
            Unit.DURATION,
            "with access.keys_file, a connection that has shown no key by then is closed. Too small: slow clients never "
            "get in; too big: strangers keep places",
            least=0.1,
            most=HOUR_S,
        ),
    )
    turn_s: float = field(
        default=0.00005,
        metadata=setting(
            Unit.DURATION,
            "with access.keys_file, how long the commands of one tenant are executed while others wait to be heard. Too "
            "small: a busy tenant is slower; too big: others feel it",
            least=0.00001,
            most=1.0,
        ),
    )
    listings: int = field(
        default=4,
        metadata=setting(
            Unit.COUNT,
            "most listings of what is in memory at once, each some half a millisecond of the loop at a time; beyond it, "
            "OVERLOADED with a retry hint. Too small: people who browse refuse one another; too big: they hold up "
            "everybody else",
            least=1,
            most=1_000,
        ),
    )
    tracking_keys: int = field(
        default=10_000,
        metadata=setting(
            Unit.COUNT,
            "most keys that one client may keep under CLIENT TRACKING; it is told to let go of the oldest. Too small: "
            "clients ask again for what they had; too big: memory, some 200 bytes for each",
            least=1,
            most=10_000_000,
        ),
    )
    tracking_total: int = field(
        default=1_000_000,
        metadata=setting(
            Unit.COUNT,
            "the same of all clients together; who keeps one more lets go of one for it. Held beyond node.memory",
            least=1,
            most=100_000_000,
        ),
    )
    idle_timeout_s: float | None = field(
        default=300.0,
        metadata=setting(
            Unit.DURATION,
            "a connection that sends nothing for this long is closed. Too small: pools reconnect all the "
            "time; `none`: dead clients keep their place",
            least=1.0,
            most=7 * DAY_S,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcConfig:
    """The gRPC door."""

    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "IP address to listen on. Any other than a loopback one needs access.keys_file and tls.cert_file, or "
            "grpc.insecure",
        ),
    )
    port: int | None = field(
        default=7380,
        metadata=setting(Unit.COUNT, "TCP port; 0 takes a free one; `none`: no such door", most=65_535),
    )
    insecure: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "allow a grpc.host that others can reach without credentials, or without TLS, where keys and values "
            "can be read on the way",
        ),
    )
    max_request_bytes: int = field(
        default=MIB,
        metadata=setting(
            Unit.BYTES,
            "a larger request is refused. Too small: large writes and long GetManys fail; too big: memory that one "
            "call can claim",
            least=4 * KIB,
            most=512 * MIB,
        ),
    )
    max_reply_bytes: int = field(
        default=4 * MIB,
        metadata=setting(
            Unit.BYTES,
            "a larger reply is refused; clients take 4MiB unless told otherwise. Too small: large values are never "
            "seen; too big: memory that one call can claim",
            least=4 * KIB,
            most=512 * MIB,
        ),
    )
    max_keys: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most keys in one GetMany, and prefixes in one Watch. Too small: more calls; too big: one call holds "
            "the loop",
            least=1,
            most=1_000_000,
        ),
    )
    max_calls: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most calls under way at once, besides watches; beyond it, RESOURCE_EXHAUSTED. Too small: bursts are "
            "refused; too big: callers wait for answers they no longer want",
            least=1,
            most=1_000_000,
        ),
    )
    max_watches: int = field(
        default=256,
        metadata=setting(
            Unit.COUNT,
            "most watches at once, of Watch, health and reflection; beyond it, OVERLOADED with a retry hint. Too "
            "big: heartbeats to all of them hold the loop",
            least=1,
            most=100_000,
        ),
    )
    max_streams: int = field(
        default=256,
        metadata=setting(
            Unit.COUNT,
            "most calls and watches of one connection at once; further ones wait at the client. Too small: busy "
            "clients wait; too big: one client takes every call there is",
            least=1,
            most=1_000_000,
        ),
    )
    max_connections: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most client connections; further ones are closed. Too big: more than the process may open files",
            least=1,
            most=1_000_000,
        ),
    )
    keepalive_s: float = field(
        default=30.0,
        metadata=setting(
            Unit.DURATION,
            "a connection is asked for a sign of life after such a silence, and closed if none comes in as long "
            "again, or if its TLS handshake takes as long. Too small: needless pings; too big: dead clients keep their watches",
            least=1.0,
            most=HOUR_S,
        ),
    )
    max_connection_age_s: float | None = field(
        default=HOUR_S,
        metadata=setting(
            Unit.DURATION,
            "a connection that is so old takes no new calls, for which clients open another by themselves, and is "
            "closed when as much time again has passed, with its watches. Too small: watches begin again all the time; "
            "`none`: strangers who keep asking for health keep their place",
            least=60.0,
            most=7 * DAY_S,
        ),
    )
    idle_timeout_s: float | None = field(
        default=300.0,
        metadata=setting(
            Unit.DURATION,
            "a connection without calls or watches for this long is closed. Too small: clients reconnect all the "
            "time; `none`: dead clients keep their place",
            least=1.0,
            most=7 * DAY_S,
        ),
    )
