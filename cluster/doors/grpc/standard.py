"""The standard services beside ours: health, and reflection, which tells the published contract."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Final, cast

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from cluster.doors.grpc.calls import Calls, Context, decoded, whole
from cluster.doors.grpc.health import SERVICE as HEALTH
from cluster.doors.grpc.health import Health
from cluster.doors.grpc.visitors import Visitor
from snapring.errors import CommandInvalid

CHECK: Final = f"{HEALTH}/Check"


class StandardMethods:
    """What ``health`` says, and the contract of ``services``. What lasts counts as a watch.

    Requests are decoded here: gRPC itself would log what is none as a defect, whoever sends it.
    """

    def __init__(self, health: Health, services: Iterable[str], calls: Calls) -> None:
        self._health = health
        self._reflection = reflection.aio.ReflectionServicer(services)
        self._calls = calls

    def check(self) -> dict[str, Any]:
        """The one method that is answered at once."""

        async def check(data: bytes, context: Context) -> HealthCheckResponse:
            try:
                request = decoded(HealthCheckRequest, data)
            except CommandInvalid as error:
                await self._calls.refuse(context, error)
            answer: HealthCheckResponse = await self._health.Check(request, context)
            return answer

        return {
            CHECK: grpc.unary_unary_rpc_method_handler(
                check, response_serializer=HealthCheckResponse.SerializeToString
            )
        }

    def lasting(self, visitor: Visitor) -> dict[str, Any]:
        """Those that last, for ``visitor``."""

        async def watch(data: bytes, context: Context) -> None:
            try:
                request = decoded(HealthCheckRequest, data)
                with self._calls.watching(visitor):
                    await self._health.Watch(request, _Writing(context))
            except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
                await self._calls.refuse(context, error)

        async def reflect(received: AsyncIterable[bytes], context: Context) -> None:
            try:
                with self._calls.watching(visitor):
                    async for answer in self._reflection.ServerReflectionInfo(_asked(received), context):
                        await whole(context.write(answer))
            except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
                await self._calls.refuse(context, error)

        return {
            f"{HEALTH}/Watch": grpc.unary_stream_rpc_method_handler(
                watch, response_serializer=HealthCheckResponse.SerializeToString
            ),
            f"{reflection.SERVICE_NAME}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                reflect, response_serializer=ServerReflectionResponse.SerializeToString
            ),
        }


async def _asked(received: AsyncIterable[bytes]) -> AsyncIterator[ServerReflectionRequest]:
    async with aclosing(cast("AsyncGenerator[bytes]", aiter(received))) as stream:
        async for data in stream:
            yield decoded(ServerReflectionRequest, data)


class _Writing:
    """As much of ``context`` as a health watch needs."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, message: HealthCheckResponse) -> None:
        """See `whole`."""
        await whole(self._context.write(message))
