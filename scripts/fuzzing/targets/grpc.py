"""Messages, metadata and bytes at the gRPC door: each call ends with an answer or a status that says what was wrong.

An input's first byte says what the rest is: a request's bytes, a watch's, metadata beside a sound request, or bytes
on a bare connection. A defect would show as INTERNAL, as a log line, or as tasks and calls that are left behind.
"""

import asyncio
import string
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

import grpc
import grpc.aio
import msgpack
from google.protobuf.message import DecodeError, Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from cluster.config import GrpcConfig
from cluster.doors.grpc import GrpcDoor
from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.readiness import Readiness
from scripts.fuzzing.choices import Choices
from scripts.fuzzing.ground import CANARY, HOST, PATIENCE_S, Ground, guards_canary
from scripts.fuzzing.target import Broken, Stand, Target, hold
from snapring.keys import DEFAULT_TENANT, parse

_HEALTH: Final = "grpc.health.v1.Health"
_REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_METHODS: Final[dict[str, tuple[type[Message], type[Message]]]] = {
    f"{SERVICE}/Get": (v1.GetRequest, v1.GetReply),
    f"{SERVICE}/GetMany": (v1.GetManyRequest, v1.GetManyReply),
    f"{SERVICE}/Write": (v1.WriteRequest, v1.WriteReply),
    f"{SERVICE}/Token": (v1.TokenRequest, v1.TokenReply),
    f"{SERVICE}/Status": (v1.StatusRequest, v1.StatusReply),
    f"{_HEALTH}/Check": (HealthCheckRequest, HealthCheckResponse),
}
_STREAMS: Final[dict[str, tuple[type[Message], type[Message]]]] = {
    f"{SERVICE}/Watch": (v1.WatchRequest, v1.WatchEvent),
    f"{_HEALTH}/Watch": (HealthCheckRequest, HealthCheckResponse),
    _REFLECTION: (ServerReflectionRequest, ServerReflectionResponse),
}
_CALL, _STREAM, _METADATA, _BYTES = range(4)
_DEFECTS: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNIMPLEMENTED}
)
_NOBODY: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_WITHIN_S: Final = 2.0
_STREAMED_S: Final = 0.05
_NAMED: Final = (string.ascii_lowercase + string.digits + "-_.").encode()
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAMES: Final = (
    b"\0\0\0\4\0\0\0\0\0",
    b"\0\0\x08\6\0\0\0\0\0" + b"x" * 8,
    b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
    b"\0\0\5\1\5\0\0\0\1\x82\x86\x84\x41\x8a",
    b"\0\xff\xff\1\4\0\0\0\1",
    b"\0\0\x08\7\0\0\0\0\0" + b"\0" * 8,
    b"\0\0\4\3\0\0\0\0\1\0\0\0\x08",
    b"\xff\xff\xff\0\0\0\0\0\1",
)
_TAGS: Final = (
    b"\x0a",
    b"\x12",
    b"\x1a",
    b"\x08",
    b"\x10",
    b"\x20",
    b"\x0b",
    b"\x0c",
    b"\x0d",
    b"\x09",
    b"\xfa\x01",
    b"\x00",
    b"\xfd\xff\xff\xff\x0f",
)
_PARTS: Final = (
    b"\x05users", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x02\xff\xfe", b"\x00", b"\x7f", b"\x80", b"\x0busers:1\xc3\xa9x",
    b"\x0a" * 120, b"\x0b" * 120, b"\x07users:1", b"\x0asettings:a",
)  # fmt: skip


def made(stand: Stand) -> Target:
    """The target."""
    return Grpc(stand)


class Grpc(Target):
    """A door that is open and one that asks for keys, before one node."""

    words = (*_TAGS, *_PARTS, b"authorization", b"Bearer ", b"grpc-timeout", b"-bin", *_FRAMES, _PREFACE)

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
        """Sound requests of each method, at each door, and connections that begin soundly."""
        requests: tuple[tuple[int, Message], ...] = (
            (0, v1.GetRequest(key="users:1", track=True)),
            (0, v1.GetRequest(key="said:x", consistency=v1.Consistency(strong=True))),
            (0, v1.GetRequest(key="default/zeta/settings:secret", consistency=v1.Consistency(at_least="AQ"))),
            (1, v1.GetManyRequest(keys=["users:1", "team:1", "said:a", "nobody:1"])),
            (1, v1.GetManyRequest(keys=["users:1", "users:2"], one_snapshot=True)),
            (
                2,
                v1.WriteRequest(
                    deeds=[
                        v1.Deed(key="settings:a", put=b"v", if_version=0),
                        v1.Deed(key="settings:b", delete=v1.Delete()),
                    ]
                ),
            ),
            (3, v1.TokenRequest(strong=True)),
            (3, v1.TokenRequest(ticket=2**64 - 1)),
            (4, v1.StatusRequest()),
            (5, HealthCheckRequest(service=SERVICE)),
        )
        streams: tuple[tuple[int, Message], ...] = (
            (0, v1.WatchRequest(prefixes=["users:", "settings:"])),
            (0, v1.WatchRequest(after=v1.Place(log=1, tick=2**64 - 1))),
            (1, HealthCheckRequest(service="")),
            (2, ServerReflectionRequest(list_services="")),
            (2, ServerReflectionRequest(file_containing_symbol=SERVICE)),
        )
        for who in range(5):
            for method, request in requests:
                yield bytes([_CALL, who, method]) + request.SerializeToString()
            for method, request in streams:
                yield bytes([_STREAM, who, method]) + request.SerializeToString()
        yield (
            bytes([_METADATA, 1, 0]) + b"authorization\0Bearer x\nx-bin\0\xff\xfe\ngrpc-timeout\0" + b"9" * 9
        )
        for frame in _FRAMES:
            yield bytes([_BYTES, 0, 0]) + _PREFACE + _FRAMES[0] + frame
        yield bytes([_BYTES, 1, 0]) + b"GET / HTTP/1.1\r\n\r\n"

    def attempt(self, data: bytes) -> None:
        """One call, or one connection; then a call of somebody else's."""
        self._ground.run(self._attempt(Choices(data)))

    def changed(self, data: bytes, random: Random) -> bytes | None:
        """Fields put in, wrapped, or taken out, whatever their types."""
        head, request = data[:3].ljust(3, b"\0"), data[3:]
        at = random.randrange(len(request) + 1)
        match random.randrange(4):
            case 0:
                request = request[:at] + random.choice(_TAGS) + random.choice(_PARTS) + request[at:]
            case 1:
                request = random.choice(_TAGS) + bytes([min(127, len(request))]) + request
            case 2:
                request += random.choice(_TAGS) + random.choice(_PARTS)
            case _:
                head = random.randbytes(3)
        return head + request

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
                await self._call(channel, [*_METHODS][method % len(_METHODS)], data, shown)
            case 1:
                await self._stream(channel, [*_STREAMS][method % len(_STREAMS)], data, shown)
            case 2:
                name = [*_METHODS][method % len(_METHODS)]
                await self._call(
                    channel, name, _METHODS[name][0]().SerializeToString(), (*shown, *_metadata(data))
                )
            case _:
                await self._bytes(self._doors[who % 2].port, data)
        await self._bystanders()
        await self._ground.settled(self._lasting)
        hold(not any(door.calls.watches for door in self._doors), "a watch is left behind")

    async def _call(self, channel: Any, name: str, data: bytes, shown: Sequence[tuple[str, Any]]) -> None:
        asked, answered = _METHODS[name]
        request = _parsed(asked, data)
        try:
            answer = await channel.unary_unary(f"/{name}")(data, timeout=_WITHIN_S, metadata=shown)
        except grpc.aio.AioRpcError as error:
            self._refused(error, request)
            return
        hold(request is not None, f"{name} answers what is no request")
        self._told(channel, data, answer)
        _fits(request, answered.FromString(answer))

    async def _stream(self, channel: Any, name: str, data: bytes, shown: Sequence[tuple[str, Any]]) -> None:
        asked, answered = _STREAMS[name]
        request = _parsed(asked, data)
        kind = channel.stream_stream if name == _REFLECTION else channel.unary_stream
        call = kind(f"/{name}")(
            iter([data]) if name == _REFLECTION else data, timeout=_WITHIN_S, metadata=shown
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


def _parsed(kind: type[Message], data: bytes) -> Message | None:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _metadata(data: bytes) -> list[tuple[str, str | bytes]]:
    """A pair for each line, as far as a client can send it at all."""
    pairs: list[tuple[str, str | bytes]] = []
    for line in data.split(b"\n")[:64]:
        name, _, value = line.partition(b"\0")
        key = bytes(byte for byte in name.lower() if byte in _NAMED).decode()
        if (
            key[:1].isalpha()
            and not key.startswith("grpc-")
            and key not in ("te", "content-type", "user-agent", "host")
        ):
            pairs.append((key, value if key.endswith("-bin") else _printable(value)))
    return pairs


def _printable(value: bytes) -> str:
    return bytes(byte for byte in value if 0x20 <= byte <= 0x7E).decode().strip()


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
