"""The doors: where clients come in, and what each may claim."""

from dataclasses import dataclass, field

from cluster.settings.units import DAY_S, GIB, KIB, MIB, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RespConfig:
    """The RESP door."""

    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "address to listen on. The door neither encrypts nor authenticates in this version: any other "
            "address than a loopback one needs resp.insecure",
        ),
    )
    port: int = field(default=7379, metadata=setting(Unit.COUNT, "TCP port; 0 takes a free one", most=65_535))
    insecure: bool = field(
        default=False,
        metadata=setting(Unit.FLAG, "allow a resp.host that others can reach, without authentication"),
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
