"""The standard services beside ours: health, and reflection, which tells the published contract."""

from collections.abc import Iterable
from typing import Any, Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from cluster.doors.grpc.calls import Calls, Context, whole
from cluster.doors.grpc.health import SERVICE as HEALTH
from cluster.doors.grpc.health import Health
from cluster.doors.grpc.visitors import Visitor

CHECK: Final = f"{HEALTH}/Check"


class StandardMethods:
    """What ``health`` says, and the contract of ``services``. What lasts counts as a watch."""

    def __init__(self, health: Health, services: Iterable[str], calls: Calls) -> None:
        self._health = health
        self._reflection = reflection.aio.ReflectionServicer(services)
        self._calls = calls

    def check(self) -> dict[str, Any]:
        """The one method that is answered at once."""
        return {
            CHECK: grpc.unary_unary_rpc_method_handler(
                self._health.Check, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
            )
        }

    def lasting(self, visitor: Visitor) -> dict[str, Any]:
        """Those that last, for ``visitor``."""

        async def watch(request: Any, context: Context) -> None:
            try:
                with self._calls.watching(visitor):
                    await self._health.Watch(request, _Writing(context))
            except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
                await self._calls.refuse(context, error)

        async def reflect(requests: Any, context: Context) -> None:
            try:
                with self._calls.watching(visitor):
                    async for answer in self._reflection.ServerReflectionInfo(requests, context):
                        await whole(context.write(answer))
            except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
                await self._calls.refuse(context, error)

        return {
            f"{HEALTH}/Watch": grpc.unary_stream_rpc_method_handler(
                watch, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
            ),
            f"{reflection.SERVICE_NAME}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                reflect, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
            ),
        }


class _Writing:
    """As much of ``context`` as a health watch needs."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, message: HealthCheckResponse) -> None:
        """See `whole`."""
        await whole(self._context.write(message))
