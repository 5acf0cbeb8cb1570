"""The gRPC and RESP doors before a real node whose memory is full of entries, or a bare gRPC server that returns
one message to whatever it is asked: what `grpc_door` measures.

There is no database behind it. The feed never runs, so the node is told once that its entries are fresh.
"""

import argparse
import asyncio
from math import inf
from time import monotonic
from typing import Any, Final

import grpc.aio
import uvloop

from cluster.config import CacheConfig, GrpcConfig, NodeConfig, PostgresConfig, RespConfig
from cluster.doors.grpc import GrpcDoor
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.resp import RespDoor
from cluster.node import Node
from cluster.readiness import Readiness
from scripts.benchmarks.hits_server import fill

_CACHE: Final = CacheConfig(name="user_by_id", sql="SELECT $1::text", single=True)


def main() -> None:
    """Serve until killed; the first line printed is the gRPC port, the second that of RESP, if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1)
    parser.add_argument("--value-bytes", type=int, default=0)
    parser.add_argument("--echo", help="the message to return, in hexadecimal digits")
    parsed = parser.parse_args()
    uvloop.run(_echo(parsed.echo) if parsed.echo else _serve(parsed.entries, parsed.value_bytes))


async def _serve(entries: int, value_bytes: int) -> None:
    node = Node(
        NodeConfig(
            name="bench",
            secrets=(b"secret of the benchmark",),
            postgres=PostgresConfig(url="postgresql://nowhere.invalid/none"),
            resp=RespConfig(port=0),
            grpc=GrpcConfig(port=0),
            caches={_CACHE.name: _CACHE},
        )
    )
    fill(node, _CACHE, entries, b"v" * value_bytes)
    node.timeline.watermark_s = monotonic() + 86_400  # as if the feed polled
    node.fresh_until_s = inf
    grpc_door = GrpcDoor(node, node, node.watching, node.config.grpc, Readiness({}))
    resp_door = RespDoor(node, node.config.resp)
    await grpc_door.start()
    await resp_door.start()
    print(grpc_door.port, resp_door.port, sep="\n", flush=True)
    await asyncio.Event().wait()


async def _echo(message: str) -> None:
    """As plain as a server of these messages can be: they are read and written, and nothing else is done."""
    reply = v1.GetReply.FromString(bytes.fromhex(message))

    async def get(_request: v1.GetRequest, _context: Any) -> v1.GetReply:
        return reply

    method = grpc.unary_unary_rpc_method_handler(
        get,
        request_deserializer=v1.GetRequest.FromString,
        response_serializer=v1.GetReply.SerializeToString,
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("snapring.v1.Snapring", {"Get": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
