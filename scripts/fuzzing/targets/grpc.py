"""Messages, metadata and bytes at the gRPC door: each call ends with an answer or a status that says what was wrong.

An input's first byte says what the rest is: a request's bytes, a watch's, metadata beside a sound request, or bytes
on a bare connection. A defect would show as INTERNAL, as a log line, or as tasks and calls that are left behind.
"""

import asyncio
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

import grpc
import grpc.aio
import msgpack
from google.protobuf.message import Message

from cluster.config import GrpcConfig
from cluster.doors.grpc import GrpcDoor
from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.readiness import Readiness
from scripts.fuzzing.choices import Choices
from scripts.fuzzing.ground import CANARY, HOST, PATIENCE_S, Ground, guards_canary
from scripts.fuzzing.grpc_inputs import (
    FRAMES,
    METHODS,
    PARTS,
    PREFACE,
    REFLECTION,
    STREAMS,
    TAGS,
    changed,
    metadata,
    parsed,
    seeds,
)
from scripts.fuzzing.target import Broken, Stand, Target, hold
from snapring.keys import DEFAULT_TENANT, parse

_DEFECTS: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNIMPLEMENTED}
)
_NOBODY: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_WITHIN_S: Final = 2.0
_STREAMED_S: Final = 0.05


def made(stand: Stand) -> Target:
    """The target."""
    return Grpc(stand)


class Grpc(Target):
    """A door that is open and one that asks for keys, before one node."""

    words = (*TAGS, *PARTS, b"authorization", b"Bearer ", b"grpc-timeout", b"-bin", *FRAMES, PREFACE)

    def __init__(self, stand: Stand) -> None:
        self._ground = ground = Ground(stand.database, stand.folder)
        config = GrpcConfig(port=0, max_request_bytes=64 * 1024, max_reply_bytes=256 * 1024, max_keys=64)
        self._doors = [
            GrpcDoor(ground.node, ground.node, ground.node.watching, config, Readiness({}), guard=guard)
            for guard in (None, ground.guard(encrypted=False))
        ]
        bearers = [None, *ground.access.keys.values()]
        self._shown = [(("authorization", b"Bearer " + key),) if key else () for key in bearers]
        self._lasting = ground.run(self._begun())

    def seeds(self) -> Iterable[bytes]:
        """Of each method, by each caller."""
        return seeds()

    def attempt(self, data: bytes) -> None:
        """One call, or one connection; then a call of somebody else's."""
        self._ground.run(self._attempt(Choices(data)))

    def changed(self, data: bytes, random: Random) -> bytes | None:
        """Other fields."""
        return changed(data, random)

    async def _begun(self) -> set[str]:
        for door in self._doors:
            await door.start()
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [
            grpc.aio.insecure_channel(f"{HOST}:{door.port}", options=options) for door in self._doors
        ]
        secret = v1.WriteRequest(deeds=[v1.Deed(key="zeta/settings:secret", put=CANARY)])
        answer = await self._channels[0].unary_unary(f"/{SERVICE}/Write")(secret.SerializeToString())
        hold(v1.WriteReply.FromString(answer).version, "nothing was written")
        await self._bystanders()
        return await self._ground.lasting()

    async def _attempt(self, choices: Choices) -> None:
        kind, who, method = (choices.number(255) for _ in range(3))
        channel, shown = self._channels[min(1, who % 5)], self._shown[max(0, who % 5 - 1)]
        data = choices.rest()
        match kind % 4:
            case 0:
                await self._call(channel, [*METHODS][method % len(METHODS)], data, shown)
            case 1:
                await self._stream(channel, [*STREAMS][method % len(STREAMS)], data, shown)
            case 2:
                name = [*METHODS][method % len(METHODS)]
                await self._call(
                    channel, name, METHODS[name][0]().SerializeToString(), (*shown, *metadata(data))
                )
            case _:
                await self._bytes(self._doors[who % 2].port, data)
        await self._bystanders()
        await self._ground.settled(self._lasting)
        hold(not any(door.calls.watches for door in self._doors), "a watch is left behind")

    async def _call(self, channel: Any, name: str, data: bytes, shown: Sequence[tuple[str, Any]]) -> None:
        asked, answered = METHODS[name]
        request = parsed(asked, data)
        try:
            answer = await channel.unary_unary(f"/{name}")(data, timeout=_WITHIN_S, metadata=shown)
        except grpc.aio.AioRpcError as error:
            self._refused(error, request)
            return
        hold(request is not None, f"{name} answers what is no request")
        self._told(channel, data, answer)
        _fits(request, answered.FromString(answer))

    async def _stream(self, channel: Any, name: str, data: bytes, shown: Sequence[tuple[str, Any]]) -> None:
        asked, answered = STREAMS[name]
        request = parsed(asked, data)
        kind = channel.stream_stream if name == REFLECTION else channel.unary_stream
        call = kind(f"/{name}")(
            iter([data]) if name == REFLECTION else data, timeout=_WITHIN_S, metadata=shown
        )
        try:
            async with asyncio.timeout(_STREAMED_S):
                async for event in call:
                    hold(request is not None, f"{name} answers what is no request")
                    self._told(channel, data, event)
                    answered.FromString(event)
        except TimeoutError:
            pass
        except grpc.aio.AioRpcError as error:
            self._refused(error, request)
        finally:
            call.cancel()

    async def _bytes(self, port: int, data: bytes) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(data)
            async with asyncio.timeout(_STREAMED_S):
                await reader.read(1 << 16)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    def _told(self, channel: Any, data: bytes, answer: bytes) -> None:
        if channel is self._channels[1]:
            guards_canary(data, answer)

    def _refused(self, error: grpc.aio.AioRpcError, request: Message | None) -> None:
        code, said = error.code(), error.details()
        hold(code not in _DEFECTS, f"{code}: {said}")
        if request is None:
            wrong = code is grpc.StatusCode.INVALID_ARGUMENT or code in _NOBODY
            hold(wrong, f"what is no request is refused with {code}: {said}")

    async def _bystanders(self) -> None:
        """Somebody else at each door is answered."""
        request = v1.GetRequest(key="said:bystander").SerializeToString()
        for channel, shown in zip(self._channels, (self._shown[0], self._shown[1]), strict=True):
            try:
                answer = await channel.unary_unary(f"/{SERVICE}/Get")(
                    request, timeout=PATIENCE_S, metadata=shown
                )
            except grpc.aio.AioRpcError as error:
                raise Broken(f"a bystander is refused: {error.code()} {error.details()}") from None
            hold(
                v1.GetReply.FromString(answer).value == msgpack.packb({"v": "bystander"}),
                "a bystander is lied to",
            )


def _fits(request: Message | None, answer: Message) -> None:
    """Whether ``answer`` may be the one to ``request``, as far as that says."""
    if isinstance(request, v1.GetManyRequest) and isinstance(answer, v1.GetManyReply):
        hold(len(request.keys) == len(answer.replies), "there are not as many replies as keys")
        for text, reply in zip(request.keys, answer.replies, strict=True):
            _is_said(text, reply)
    if isinstance(request, v1.GetRequest) and isinstance(answer, v1.GetReply):
        _is_said(request.key, answer)


def _is_said(text: str, reply: v1.GetReply) -> None:
    key, _ = parse(text.encode())
    if key.cache == "said" and key.tenant == DEFAULT_TENANT:
        hold(
            msgpack.unpackb(reply.value) == {"v": key.args[0]},
            f"{text!r} is answered with {reply.value!r:.100}",
        )
