"""``snapring watch [PREFIX…]``: the keys that nodes let go of, as it happens. It asks the gRPC doors' ``Watch``."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Event, Thread
from time import monotonic
from typing import Any, Final

from cluster.commands import reach
from cluster.commands.outcomes import MISSING, OK
from cluster.commands.run import Run, complain, print_line
from cluster.commands.values import printable
from cluster.commands.watching import Back, Lost, Sought, Told, Watch
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1

_SKIPPED: Final = "something was missed: whoever keeps values lets go of all of them"
_AHEAD: Final = 100
"""Most events that wait to be printed."""

_LOOK_S: Final = 0.1

_JOIN_S: Final = 5.0

News = Told | Lost | Back


@dataclass(frozen=True, slots=True)
class _Ended:
    """A watch has: time is over, or ``error`` broke it."""

    error: Exception | None


def run(run: Run) -> int:
    """Print a line a key until Ctrl-C, ``--count`` or ``--for``; for programs a line of JSON an event.

    What becomes of connections goes to standard error. Code 1 if there were fewer than ``--count``. Raises what a node
    says, `ConnectionFailed` if one does not answer, or no more for longer than ``--reconnect``.
    """
    asked = run.arguments
    doors, shown = reach.grpc_doors(run), reach.credentials(run)
    sought = Sought(
        prefixes=asked.prefixes,
        until_s=None if asked.duration is None else monotonic() + asked.duration,
        within_s=asked.timeout,
        patience_s=asked.reconnect,
    )
    if run.terminal:
        complain(
            f"what the memory of {', '.join(doors)} lets go of, until Ctrl-C; other nodes have their own (--grpc):"
        )
    with _side_by_side([Watch(door, shown, sought) for door in doors]) as news:
        enough = _print_until(run, news, several=len(doors) > 1)
    return OK if enough or asked.count is None else MISSING


@contextmanager
def _side_by_side(watches: Sequence[Watch]) -> Iterator[Iterator[News]]:
    """What all of them tell, as it comes, until the last has ended or the first has failed."""
    queue: Queue[News | _Ended] = Queue(_AHEAD)
    over = Event()
    threads = [Thread(target=_listen, args=(watch, queue, over), daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        yield _told(queue, len(watches))
    finally:
        over.set()
        for watch, thread in zip(watches, threads, strict=True):
            watch.stop()
            thread.join(_JOIN_S)


def _told(queue: "Queue[News | _Ended]", going: int) -> Iterator[News]:
    while going:
        news = queue.get()
        if not isinstance(news, _Ended):
            yield news
        elif news.error is not None:
            raise news.error
        else:
            going -= 1


def _listen(watch: Watch, queue: "Queue[News | _Ended]", over: Event) -> None:
    try:
        for news in watch.news():
            _put(queue, news, over)
        _put(queue, _Ended(None), over)
    except Exception as error:  # noqa: BLE001  # who reads the queue raises it
        _put(queue, _Ended(error), over)


def _put(queue: "Queue[News | _Ended]", news: "News | _Ended", over: Event) -> None:
    """Wait until there is room: a node that is not read from in time skips."""
    left = True
    while left and not over.is_set():
        with suppress(Full):
            queue.put(news, timeout=_LOOK_S)
            left = False


def _print_until(run: Run, news: Iterator[News], *, several: bool) -> bool:
    """Whether ``--count`` was reached, before all watches ended."""
    named = 0
    met: set[str] = set()
    for each in news:
        if not isinstance(each, Told):
            complain(_what_became(each))
            continue
        event, first = each.event, each.door not in met
        met.add(each.door)
        if run.terminal:
            _print_lines(event, f"{each.door}  " if several else "")
        elif event.keys or event.skipped or first or run.arguments.heartbeats:
            print_line(json.dumps(as_json(each), ensure_ascii=False))
        sys.stdout.flush()
        named += len(event.keys)
        if run.arguments.count is not None and named >= run.arguments.count:
            return True
    return False


def as_json(told: Told) -> dict[str, Any]:
    """One event: ``watermark`` is None unless all keys up to it have been named."""
    event = told.event
    return {
        "door": told.door,
        "keys": list(event.keys),
        "skipped": event.skipped,
        "watermark": event.watermark or None,
        "age_ms": event.age_ms if event.watermark else None,
    }


def _what_became(of: Lost | Back) -> str:
    if isinstance(of, Lost):
        return f"{of.error.code}: {of.error}: going on from there as soon as {of.door} answers again"
    missed = "what happened meanwhile is not known" if of.missed else "nothing was missed"
    return f"{of.door} answers again after {of.away_s:.1f} s: {missed}"


def _print_lines(event: v1.WatchEvent, whose: str) -> None:
    now = datetime.now(UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    if event.skipped:
        print_line(f"{now}  {whose}{_SKIPPED}")
    for key in event.keys:
        print_line(f"{now}  {whose}{printable(key)}")
