"""The method that writes: puts and deletes of ``store`` caches, one transaction."""

from collections.abc import Sequence

from cluster.doors.grpc.calls import Answer, Calls, Context
from cluster.doors.grpc.messages import deed_of
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.reads import Reads
from cluster.writes import ABSENT, Deed


class WriteMethods:
    """Writes of ``visitor`` to ``node``, each by itself: who must read his own write uses the token."""

    def __init__(self, node: Reads, calls: Calls, visitor: Visitor) -> None:
        self._node = node
        self._visitor = visitor
        self._calls = calls

    def write(self, request: v1.WriteRequest, context: Context) -> Answer:
        """Write."""
        deeds = [deed_of(self._visitor, deed) for deed in request.deeds]
        return self._write(deeds, self._calls.deadline_s(context))

    def size_of(self, request: v1.WriteRequest) -> int:
        """As how many requests it counts: one for each deed, up to those of the largest allowed."""
        return max(1, min(len(request.deeds), self._node.config.write.max_keys))

    async def _write(self, deeds: Sequence[Deed], deadline_s: float) -> v1.WriteReply:
        written = await self._node.write(deeds, deadline_s)
        put = any(deed.value is not None for deed in deeds)
        return v1.WriteReply(
            token=self._node.written_token(written),
            version=written.version if put else ABSENT,
            existed=written.existed,
        )
