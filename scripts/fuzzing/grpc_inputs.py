"""Inputs for the gRPC door: requests of each method, metadata, frames, and others that are like them."""

import string
from collections.abc import Iterator
from random import Random
from typing import Final

from google.protobuf.message import DecodeError, Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1

CALL, STREAM, METADATA, BYTES = range(4)
"""What the first byte of an input says that the rest is."""

_HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
METHODS: Final[dict[str, tuple[type[Message], type[Message]]]] = {
    f"{SERVICE}/Get": (v1.GetRequest, v1.GetReply),
    f"{SERVICE}/GetMany": (v1.GetManyRequest, v1.GetManyReply),
    f"{SERVICE}/Write": (v1.WriteRequest, v1.WriteReply),
    f"{SERVICE}/Token": (v1.TokenRequest, v1.TokenReply),
    f"{SERVICE}/Status": (v1.StatusRequest, v1.StatusReply),
    f"{_HEALTH}/Check": (HealthCheckRequest, HealthCheckResponse),
}
STREAMS: Final[dict[str, tuple[type[Message], type[Message]]]] = {
    f"{SERVICE}/Watch": (v1.WatchRequest, v1.WatchEvent),
    f"{_HEALTH}/Watch": (HealthCheckRequest, HealthCheckResponse),
    REFLECTION: (ServerReflectionRequest, ServerReflectionResponse),
}
_NAMED: Final = (string.ascii_lowercase + string.digits + "-_.").encode()
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAMES: Final = (
    b"\0\0\0\4\0\0\0\0\0",
    b"\0\0\x08\6\0\0\0\0\0" + b"x" * 8,
    b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
    b"\0\0\5\1\5\0\0\0\1\x82\x86\x84\x41\x8a",
    b"\0\xff\xff\1\4\0\0\0\1",
    b"\0\0\x08\7\0\0\0\0\0" + b"\0" * 8,
    b"\0\0\4\3\0\0\0\0\1\0\0\0\x08",
    b"\xff\xff\xff\0\0\0\0\0\1",
)
TAGS: Final = (
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
PARTS: Final = (
    b"\x05users", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x02\xff\xfe", b"\x00", b"\x7f", b"\x80", b"\x0busers:1\xc3\xa9x",
    b"\x0a" * 120, b"\x0b" * 120, b"\x07users:1", b"\x0asettings:a",
)  # fmt: skip


def seeds() -> Iterator[bytes]:
    """Sound requests of each method, by each caller, and connections that begin soundly."""
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
            yield bytes([CALL, who, method]) + request.SerializeToString()
        for method, request in streams:
            yield bytes([STREAM, who, method]) + request.SerializeToString()
    yield (bytes([METADATA, 1, 0]) + b"authorization\0Bearer x\nx-bin\0\xff\xfe\ngrpc-timeout\0" + b"9" * 9)
    for frame in FRAMES:
        yield bytes([BYTES, 0, 0]) + PREFACE + FRAMES[0] + frame
    yield bytes([BYTES, 1, 0]) + b"GET / HTTP/1.1\r\n\r\n"


def changed(data: bytes, random: Random) -> bytes:
    """Fields put in, wrapped, or taken out, whatever their types."""
    head, request = data[:3].ljust(3, b"\0"), data[3:]
    at = random.randrange(len(request) + 1)
    match random.randrange(4):
        case 0:
            request = request[:at] + random.choice(TAGS) + random.choice(PARTS) + request[at:]
        case 1:
            request = random.choice(TAGS) + bytes([min(127, len(request))]) + request
        case 2:
            request += random.choice(TAGS) + random.choice(PARTS)
        case _:
            head = random.randbytes(3)
    return head + request


def parsed(kind: type[Message], data: bytes) -> Message | None:
    """The message that ``data`` is; None if it is none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def metadata(data: bytes) -> list[tuple[str, str | bytes]]:
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
