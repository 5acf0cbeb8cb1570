"""The gRPC door: `snapring.v1`, whose contract is ``snapring/v1/snapring.proto``.

`GrpcDoor` listens and ends, `Calls` turns bytes into answers and failures into statuses, and the methods are in
`reads`, `writes`, `watches` and `status`.
"""

from cluster.doors.grpc.door import GrpcDoor

__all__ = ["GrpcDoor"]
