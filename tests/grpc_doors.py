"""A gRPC door on a real socket, before a node that lives in memory or a real one, and a plain client to talk to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from cluster.access.guard import Guard
from cluster.config import GrpcConfig, WatchConfig
from cluster.doors.grpc import GrpcDoor
from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.reads import Near
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.lines import Lines
from cluster.doors.reads import Reads
from cluster.entries import Entry
from cluster.readiness import Readiness
from cluster.tracing.tracing import Tracing
from cluster.watching import Hub
from doors import MemoryNode
from keys import Holder
from nodes import WITHIN_S

METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    method.name: (
        getattr(v1, method.input_type.name),
        getattr(v1, method.output_type.name),
    )
    for method in v1.DESCRIPTOR.services_by_name["Snapring"].methods
}
QUICK = WatchConfig(heartbeat_s=0.02, gather_s=0.0)


class Memory(MemoryNode):
    """A node in memory that a door for gRPC can ask, and what is told of it."""

    def __init__(self, *, request_timeout_s: float = 5.0) -> None:
        super().__init__(request_timeout_s=request_timeout_s)
        self.timeline.as_of = lambda entry: (entry.snapshot, monotonic() - 0.0121)

    def hit(self, key: bytes, now_s: float | None = None) -> Entry | None:
        """From memory, as plainly as can be."""
        entry: Entry | None = self.store.index.get(key)
        return entry


class Calling:
    """A client of a gRPC door: ``await calling.Get(key="users:1")``."""

    def __init__(self, channel: grpc.aio.Channel, who: Holder | None = None) -> None:
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {who.key}"),) if who else ()

    def __getattr__(self, name: str) -> Any:
        asked, answered = METHODS[name]
        kind = self.channel.unary_stream if name == "Watch" else self.channel.unary_unary
        method = kind(
            f"/{SERVICE}/{name}",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )

        def call(*, within_s: float | None = WITHIN_S, **fields: Any) -> Any:
            return method(asked(**fields), timeout=within_s, metadata=self.metadata)

        return call

    def raw(self, name: str, data: bytes) -> Any:
        """A call with ``data`` for a request; its answer as bytes."""
        return self.channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=WITHIN_S, metadata=self.metadata)


class Here(Calling):
    """The same of a door in this process."""

    def __init__(self, channel: grpc.aio.Channel, door: GrpcDoor) -> None:
        super().__init__(channel)
        self.door = door

    @asynccontextmanager
    async def through(self, credentials: grpc.ChannelCredentials, who: Holder) -> AsyncIterator[Calling]:
        """The same door, as ``who`` calls it through a new connection under TLS."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        where = f"localhost:{self.door.port}"
        async with grpc.aio.secure_channel(where, credentials, options=options) as channel:
            yield Calling(channel, who)

    def by(self, who: Holder) -> Calling:
        """The same door, as ``who`` calls it."""
        return Calling(self.channel, who)


@asynccontextmanager
async def serving(
    node: Reads,
    near: Near,
    watching: Hub,
    guard: Guard | None = None,
    lines: Lines | None = None,
    *,
    tracing: Tracing | None = None,
    **settings: Any,
) -> AsyncIterator[Here]:
    """A door before ``node``, and a client of it."""
    readiness = Readiness({"feed": lambda: "" if node.timeline.watermark else "no watermark"})
    door = GrpcDoor(
        *(node, near, watching, GrpcConfig(port=0, **settings), readiness),
        guard=guard,
        lines=lines,
        tracing=tracing,
    )
    await door.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
            yield Here(channel, door)
    finally:
        await door.drain(monotonic())


@asynccontextmanager
async def in_memory(
    node: Memory | None = None, guard: Guard | None = None, lines: Lines | None = None, **settings: Any
) -> AsyncIterator[tuple[Memory, Here]]:
    """The same before a node in memory."""
    node = node or Memory()
    async with serving(node, node, node.watching, guard, lines, **settings) as calling:
        yield node, calling


async def failure(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Code, reason and metadata of a call that must fail; the reason is empty where the status has no details."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[no-untyped-call]
        info, retry = ErrorInfo(), RetryInfo()
        for detail in status.details if status else ():
            detail.Unpack(info)
            if detail.Unpack(retry):
                info.metadata["retry_s"] = str(retry.retry_delay.ToTimedelta().total_seconds())
        return error.code(), info.reason, dict(info.metadata)
    raise AssertionError(f"it did not fail: {answer}")


async def eventually(holds: Any) -> None:
    """Let the loop turn until ``holds()``."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.001)
