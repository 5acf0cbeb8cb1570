"""What operators see of a node that runs: its HTTP door, and the sampling of the other doors for it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from cluster.access.guard import Guard
from cluster.doors.lines import Lines
from cluster.doors.resp import RespDoor
from cluster.doors.sampling import Sampled, Sampling
from cluster.node import Node
from cluster.readiness import Readiness

if TYPE_CHECKING:
    from cluster.doors.grpc import GrpcDoor
    from cluster.doors.http import HttpDoor
    from cluster.peering.place import Among

_log: Final = logging.getLogger("snapring")


class Operations:
    """Of ``node`` and its doors; ``among`` is its place among others. Nothing where `http.port` is none.

    ``describe`` is what the node says of itself, ``lines`` what its log says of requests.
    """

    def __init__(
        self,
        node: Node,
        *,
        guard: Guard,
        readiness: Readiness,
        resp: RespDoor,
        grpc: "GrpcDoor | None",
        among: "Among | None",
        describe: Callable[[], Mapping[str, Mapping[str, object]]],
        lines: Lines,
    ) -> None:
        self._config = node.config
        self._sampling: Sampling | None = None
        self._door: HttpDoor | None = None
        if node.config.http.port is None:
            return
        doors: dict[str, Sampled] = {"resp": resp} | ({"grpc": grpc} if grpc else {})
        if node.config.http.sample_period_s is not None:
            self._sampling = Sampling(doors, node.config.http.sample_period_s)
        from cluster.doors import http  # noqa: PLC0415 -- a node without the door needs none of it

        sources = http.Sources(
            node=node,
            readiness=readiness,
            resp=resp.counts,
            grpc=grpc.calls if grpc else None,
            among=among,
            sampling=self._sampling,
            guard=guard,
            lines=lines,
        )
        self._door = http.HttpDoor(
            http.Pages(sources, describe, guard.gate), node.config.http, guard.tls_of_probes
        )

    def __repr__(self) -> str:
        return f"<Operations {self._door!r}>"

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        if self._door is not None:
            await self._door.start()
            _log.info(
                "node %s answers HTTP on %s:%d", self._config.name, self._config.http.host, self._door.port
            )

    async def run(self) -> None:
        """Sample until cancelled."""
        if self._sampling is not None:
            await self._sampling.run()
        await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Answer no more."""
        if self._door is not None:
            await self._door.stop()
