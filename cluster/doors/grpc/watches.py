"""The method that watches: what a `Hub` tells, as events."""

from collections.abc import Sequence
from math import inf
from time import monotonic

from cluster.config import GrpcConfig
from cluster.doors.grpc.calls import Calls, Context, decoded, whole
from cluster.doors.grpc.messages import milliseconds, place_of
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.reads import Reads
from cluster.watching import Hub, News, Place
from snapring.errors import CommandInvalid
from snapring.keys import MAX_KEY_BYTES


class WatchMethods:
    """Streams of what ``watching`` tells ``visitor``.

    A tenant hears of its own keys, and of nothing else: not even when another's leave.
    """

    def __init__(
        self, node: Reads, watching: Hub, calls: Calls, config: GrpcConfig, visitor: Visitor
    ) -> None:
        self._node = node
        self._visitor = visitor
        self._watching = watching
        self._calls = calls
        self._max_prefixes = config.max_keys

    async def watch(self, data: bytes, context: Context) -> None:
        """Watch: events until the client or the node goes."""
        try:
            request = decoded(v1.WatchRequest, data)
            prefixes = self._prefixes(request)
            after = Place(request.after.log, request.after.tick) if request.HasField("after") else None
            with self._calls.watching(self._visitor):
                self._visitor.take(1)
                await self._tell(prefixes, after, context)
        except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
            self._calls.tell("Watch", context, error, self._visitor.caller)
            await self._calls.refuse(context, error)

    async def _tell(self, prefixes: Sequence[bytes], after: Place | None, context: Context) -> None:
        subscription = self._watching.subscribe(prefixes, after)
        told_s = -inf
        try:
            while True:
                news = await subscription.next()
                keys = self._visitor.told(news.keys)
                if keys or news.skipped or self._is_due(told_s):
                    await whole(context.write(self._event(news, keys).SerializeToString()))
                    told_s = monotonic()
        finally:
            subscription.close()

    def _is_due(self, told_s: float) -> bool:
        """Whether an event that names no key is sent. What moves a tenant's is the clock: else it shows others' traffic."""
        return self._visitor.caller is None or monotonic() - told_s >= self._watching.config.heartbeat_s

    def _event(self, news: News, keys: Sequence[bytes]) -> v1.WatchEvent:
        watermark, age_ms = "", -1
        if news.watermark is not None and news.incarnation is not None:
            watermark = self._node.token(news.watermark, news.incarnation)
            age_ms = milliseconds(monotonic() - news.watermark_s)
        return v1.WatchEvent(
            skipped=news.skipped,
            keys=[key.decode() for key in keys],
            place=place_of(news.place),
            watermark=watermark,
            age_ms=age_ms,
        )

    def _prefixes(self, request: v1.WatchRequest) -> Sequence[bytes]:
        if len(request.prefixes) > self._max_prefixes:
            raise CommandInvalid(f"a Watch has at most {self._max_prefixes} prefixes (grpc.max_keys)")
        prefixes = [prefix.encode() for prefix in request.prefixes]
        if not all(0 < len(prefix) <= MAX_KEY_BYTES for prefix in prefixes):
            raise CommandInvalid(f"a prefix has 1 to {MAX_KEY_BYTES} bytes; for all keys leave them out")
        return self._visitor.prefixes(prefixes)
