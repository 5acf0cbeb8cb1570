"""The method that says what the node says of itself."""

from collections.abc import Mapping

from cluster.access.guard import Guard
from cluster.doors.grpc.calls import Answer, Context
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.reads import Reads


class StatusMethods:
    """What ``node`` says of itself to ``visitor``, and the ``guard`` of the door of who comes in."""

    def __init__(self, node: Reads, visitor: Visitor, guard: Guard | None) -> None:
        self._node = node
        self._visitor = visitor
        self._guard = guard

    def status(self, _request: v1.StatusRequest, _context: Context) -> Answer:
        """Status."""
        sections = [
            v1.Section(name=name, fields={field: str(value) for field, value in fields.items()})
            for name, fields in self._inside().items()
        ]
        return v1.StatusReply(node=self._node.config.name, watermark=self._watermark(), sections=sections)

    def _inside(self) -> Mapping[str, Mapping[str, object]]:
        """What is nobody's business but an administrator's: it tells one tenant of the others."""
        if not self._visitor.looks_inside:
            return {}
        return {**self._node.describe(), **({"access": self._guard.describe()} if self._guard else {})}

    def _watermark(self) -> str:
        timeline = self._node.timeline
        if timeline.watermark is None or timeline.incarnation is None:
            return ""
        return self._node.token(timeline.watermark, timeline.incarnation)
