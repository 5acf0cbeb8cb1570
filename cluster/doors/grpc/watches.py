"""The method that watches: what a `Hub` tells, as events."""

from time import monotonic

from cluster.config import GrpcConfig
from cluster.doors.grpc.calls import Calls, Context, decoded
from cluster.doors.grpc.messages import milliseconds, place_of
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.reads import Reads
from cluster.watching import Hub, News, Place
from snapring.errors import CommandInvalid
from snapring.keys import MAX_KEY_BYTES


class WatchMethods:
    """Streams of what ``watching`` tells."""

    def __init__(self, node: Reads, watching: Hub, calls: Calls, config: GrpcConfig) -> None:
        self._node = node
        self._watching = watching
        self._calls = calls
        self._max_prefixes = config.max_keys

    async def watch(self, data: bytes, context: Context) -> None:
        """Watch: events until the client or the node goes."""
        try:
            request = decoded(v1.WatchRequest, data)
            prefixes = self._prefixes(request)
            after = Place(request.after.log, request.after.tick) if request.HasField("after") else None
            with self._calls.watching():
                await self._tell(prefixes, after, context)
        except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
            await self._calls.refuse(context, error)

    async def _tell(self, prefixes: list[bytes], after: Place | None, context: Context) -> None:
        subscription = self._watching.subscribe(prefixes, after)
        try:
            while True:
                event = self._event(await subscription.next())
                await context.write(event.SerializeToString())
        finally:
            subscription.close()

    def _event(self, news: News) -> v1.WatchEvent:
        watermark, age_ms = "", -1
        if news.watermark is not None and news.incarnation is not None:
            watermark = self._node.token(news.watermark, news.incarnation)
            age_ms = milliseconds(monotonic() - news.watermark_s)
        return v1.WatchEvent(
            skipped=news.skipped,
            keys=[key.decode() for key in news.keys],
            place=place_of(news.place),
            watermark=watermark,
            age_ms=age_ms,
        )

    def _prefixes(self, request: v1.WatchRequest) -> list[bytes]:
        if len(request.prefixes) > self._max_prefixes:
            raise CommandInvalid(f"a Watch has at most {self._max_prefixes} prefixes (grpc.max_keys)")
        prefixes = [prefix.encode() for prefix in request.prefixes]
        if not all(0 < len(prefix) <= MAX_KEY_BYTES for prefix in prefixes):
            raise CommandInvalid(f"a prefix has 1 to {MAX_KEY_BYTES} bytes; for all keys leave them out")
        return prefixes
