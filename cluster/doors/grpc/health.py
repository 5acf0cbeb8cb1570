"""The standard health service: SERVING once the node has followed the database, NOT_SERVING from a drain on."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from cluster.doors.grpc.calls import Calls, Context

SERVICE: Final[str] = health.SERVICE_NAME
_LOOK_S: Final = 0.05


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """Of the door as a whole (the empty name) and of ``service``. Its watches count as watches."""

    def __init__(self, service: str, calls: Calls) -> None:
        super().__init__()
        self._names = ("", service)
        self._calls = calls

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802  # the method's name
        """Streams of states, as many as there may be watches."""
        try:
            with self._calls.watching():
                await super().Watch(request, context)
        except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
            await self._calls.refuse(context, error)

    async def follow(self, is_ready: Callable[[], bool]) -> None:
        """Say NOT_SERVING until ``is_ready``, then SERVING."""
        for state in (HealthCheckResponse.NOT_SERVING, HealthCheckResponse.SERVING):
            for name in self._names:
                await self.set(name, state)
            while not is_ready():  # noqa: ASYNC110 -- becoming ready sets no event
                await asyncio.sleep(_LOOK_S)
