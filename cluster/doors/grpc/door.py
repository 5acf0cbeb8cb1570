"""The gRPC door of a node: listens, bounds what clients may claim, drains at the end.

What is bounded, and by which setting: calls under way (``max_calls``, and ``max_watches`` of those that last),
streams of a connection (``max_streams``), connections (``max_connections``), messages (``max_request``,
``max_reply``), silence (``keepalive``, ``idle_timeout``), age
(``max_connection_age``). Metadata is bounded by gRPC itself, at 16 KiB. Of calls under
way and of watches, one tenant has at most its ``queue_share``.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
from grpc_reflection.v1alpha import reflection

from cluster.access.guard import Guard
from cluster.config import GrpcConfig
from cluster.doors.grpc.admission import Guarded, Methods, Open
from cluster.doors.grpc.calls import UNCERTAIN, Calls
from cluster.doors.grpc.health import SERVICE as HEALTH
from cluster.doors.grpc.health import Health
from cluster.doors.grpc.reads import Near, ReadMethods
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.standard import StandardMethods
from cluster.doors.grpc.status import StatusMethods
from cluster.doors.grpc.traces import TracedHandlers, TracedNear
from cluster.doors.grpc.visitors import Anybody, Rooms, Visitor
from cluster.doors.grpc.watches import WatchMethods
from cluster.doors.grpc.writes import WriteMethods
from cluster.doors.lines import Lines, no_lines
from cluster.doors.reads import Reads
from cluster.readiness import Readiness
from cluster.tracing.reads import TracedReads
from cluster.watching import Hub
from peers.members import Address
from peers.transport import listening_at
from peers.trust import serving

if TYPE_CHECKING:
    from cluster.tracing.tracing import Tracing

SERVICE: Final[str] = v1.DESCRIPTOR.services_by_name["Snapring"].full_name

_FLUSH_S: Final = 0.25
"""How long clients may take to read their last replies once a drain's deadline has passed."""


class GrpcDoor:
    """Answers gRPC clients out of ``node``, and of ``near`` what they want to hold. For one event loop.

    ``guard`` says whom, and by which certificate they know it. Its health is what ``readiness`` says. Calls are traced
    where there is ``tracing``.

    Calls are told of in ``lines``. A stopped door cannot be started again.
    """

    def __init__(
        self,
        node: Reads,
        near: Near,
        watching: Hub,
        config: GrpcConfig,
        readiness: Readiness,
        *,
        guard: Guard | None = None,
        lines: Lines | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.port = config.port or 0
        self.calls = Calls(config, node.config.request_timeout_s, lines or no_lines())
        self._readiness = readiness
        self._watching = watching
        self._config = config
        self._guard = guard
        self._health = Health(SERVICE)
        standard = StandardMethods(self._health, (SERVICE, HEALTH, reflection.SERVICE_NAME), self.calls)

        rooms = Rooms(node.config.quota, config)

        def handlers(reads: Reads, near: Near) -> Open | Guarded:
            def methods_for(visitor: Visitor) -> Methods:
                ours = _methods(reads, near, watching, self.calls, config, visitor=visitor, guard=guard)
                return {
                    **{f"{SERVICE}/{name}": each for name, each in ours.items()},
                    **standard.lasting(visitor),
                }

            if guard is None or guard.gate is None:
                return Open(methods_for(Anybody()))
            guarded = Guarded(guard.gate, self.calls, rooms, methods_for)
            guard.reviews.append(guarded.review)
            return guarded

        first: grpc.GenericRpcHandler = handlers(node, near)
        if tracing is not None:
            first = TracedHandlers(first, handlers(TracedReads(node), TracedNear(near)), tracing)
        self._handlers = [first, Open(standard.check())]
        self._following: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None

    def __repr__(self) -> str:
        return f"<GrpcDoor {self._config.host}:{self.port} {self.calls!r}>"

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        config = self._config
        server = grpc.aio.server(
            options=_options(config), maximum_concurrent_rpcs=config.max_calls + config.max_watches
        )
        server.add_generic_rpc_handlers(self._handlers)
        where = Address(host=config.host, port=self.port)
        try:
            self.port = self._listen(server, listening_at(where))
        except RuntimeError as error:
            raise OSError(
                await _why(where), f"cannot listen on {where.host} port {where.port}: {error}"
            ) from error
        self._server = server
        self._following = asyncio.create_task(self._health.follow(self._readiness), name="gRPC health")
        await server.start()

    def sample(self, took: Callable[[float], None]) -> None:
        """Tell ``took`` how many seconds the next call takes that is no watch."""
        self.calls.sample = took

    def pick(self) -> None:
        """The next call that is no watch gets a line in the log."""
        self.calls.picked = True

    def _listen(self, server: grpc.aio.Server, where: str) -> int:
        guard = self._guard
        if guard is None or guard.pems is None:
            return int(server.add_insecure_port(where))
        first = guard.pems
        return int(server.add_secure_port(where, serving(lambda: guard.pems or first)))

    async def drain(self, deadline_s: float) -> None:
        """Take no more calls, end the watches; let what is under way finish until monotonic ``deadline_s``.

        What has not been answered by then is answered with ``NODE_STOPPING``, a write with ``WRITE_UNCERTAIN``.
        """
        if self._server is None:
            return
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._health.enter_graceful_shutdown()
        self._watching.stop()
        grace_s = max(0.0, deadline_s - monotonic()) + _FLUSH_S
        stopping = asyncio.create_task(self._server.stop(grace_s), name="gRPC door stops")
        await self.calls.finished(deadline_s)
        await self._server.stop(_FLUSH_S)  # for nobody else is waited, such as who watches our health
        await stopping


async def _why(where: Address) -> int:
    """The system's number of what keeps us from listening, which gRPC does not say; 0 for nothing any more."""
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, where.host, where.port)
    except OSError as error:
        return error.errno or 0
    server.close()
    return 0


def _methods(
    node: Reads,
    near: Near,
    watching: Hub,
    calls: Calls,
    config: GrpcConfig,
    *,
    visitor: Visitor,
    guard: Guard | None,
) -> dict[str, Any]:
    reads = ReadMethods(node, near, watching, calls, config, visitor=visitor)
    writes = WriteMethods(node, calls, visitor)
    status = StatusMethods(node, visitor, guard)
    watches = WatchMethods(node, watching, calls, config, visitor)
    unary, handler = grpc.unary_unary_rpc_method_handler, calls.handler
    return {
        "Get": unary(handler(v1.GetRequest, reads.get, visitor, at_once=reads.get_hit)),
        "GetMany": unary(handler(v1.GetManyRequest, reads.get_many, visitor, requests=reads.size_of)),
        "Token": unary(handler(v1.TokenRequest, reads.token, visitor)),
        "Write": unary(
            handler(v1.WriteRequest, writes.write, visitor, requests=writes.size_of, when_stopped=UNCERTAIN)
        ),
        "Status": unary(handler(v1.StatusRequest, status.status, visitor)),
        "Watch": grpc.unary_stream_rpc_method_handler(watches.watch),
    }


def _options(config: GrpcConfig) -> list[tuple[str, Any]]:
    keepalive_ms = round(config.keepalive_s * 1000)
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", config.max_request_bytes),
        ("grpc.max_send_message_length", -1),  # what is too large is refused in our own words
        ("grpc.max_concurrent_streams", config.max_streams),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.server_handshake_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),  # else a dead client is waited for far longer
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),  # clients may ask for signs of life, too
    ]
    if config.max_connection_age_s is not None:
        age_ms = round(config.max_connection_age_s * 1000)
        options += [("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", age_ms)]
    if config.idle_timeout_s is not None:
        options.append(("grpc.max_connection_idle_ms", round(config.idle_timeout_s * 1000)))
    return options
