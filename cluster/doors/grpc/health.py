"""The standard health service: SERVING while the node is ready, NOT_SERVING from a drain on."""

import asyncio
from typing import Any, Final

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from cluster.doors.grpc.calls import Calls, Context
from cluster.readiness import Readiness

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

    async def follow(self, readiness: Readiness) -> None:
        """Say SERVING while the node is ready, else NOT_SERVING, until cancelled."""
        said = None
        while True:
            ready = bool(readiness)
            if ready is not said:
                said = ready
                for name in self._names:
                    await self.set(
                        name, HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
                    )
            await asyncio.sleep(_LOOK_S)
