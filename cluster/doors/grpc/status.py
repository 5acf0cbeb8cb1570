"""The method that says what the node says of itself."""

from cluster.doors.grpc.calls import Answer, Context
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.reads import Reads


class StatusMethods:
    """What ``node`` says of itself."""

    def __init__(self, node: Reads) -> None:
        self._node = node

    def status(self, _request: v1.StatusRequest, _context: Context) -> Answer:
        """Status."""
        sections = [
            v1.Section(name=name, fields={field: str(value) for field, value in fields.items()})
            for name, fields in self._node.describe().items()
        ]
        return v1.StatusReply(node=self._node.config.name, watermark=self._watermark(), sections=sections)

    def _watermark(self) -> str:
        timeline = self._node.timeline
        if timeline.watermark is None or timeline.incarnation is None:
            return ""
        return self._node.token(timeline.watermark, timeline.incarnation)
