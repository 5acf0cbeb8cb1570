"""The standard health service: SERVING while the node is ready, NOT_SERVING from a drain on."""

import asyncio
from typing import Final

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from cluster.readiness import Readiness

SERVICE: Final[str] = health.SERVICE_NAME
_LOOK_S: Final = 0.05


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """Of the door as a whole (the empty name) and of ``service``."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._names = ("", service)

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
