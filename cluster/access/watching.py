"""Files that may be replaced while a node runs: looked at again and again, and taken over whole or not at all."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from snapring.errors import ConfigInvalid

T = TypeVar("T")

_log: Final = logging.getLogger("snapring")


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed(Generic[T]):
    """``read`` makes of ``files`` what ``adopt`` puts in force. ``what`` they are, for the log.

    ``read`` runs in a thread and raises `ConfigInvalid` or `OSError`; ``adopt`` runs on the loop.
    """

    what: str
    files: Sequence[Path]
    read: Callable[[], T]
    adopt: Callable[[T], None]


class Watch:
    """Looks at ``followed`` every ``period_s``, and when `stir` says so.

    What cannot be read leaves in force what is; it is tried again as soon as the files differ again. ``reloads``
    counts what was put in force, ``failures`` what could not be. ``after`` is called after every look.
    """

    def __init__(
        self, followed: Sequence[Followed[Any]], *, period_s: float, after: Callable[[], None]
    ) -> None:
        self._followed = [*followed]
        self._period_s = period_s
        self._after = after
        self._seen = {each.what: fingerprint(each.files) for each in followed}
        self._stirred = asyncio.Event()
        self.reloads = self.failures = 0

    def __repr__(self) -> str:
        return f"<Watch {', '.join(self._seen)}: reloads={self.reloads} failures={self.failures}>"

    def follow(self, more: Followed[Any]) -> None:
        """Look at ``more`` too."""
        self._followed.append(more)
        self._seen[more.what] = fingerprint(more.files)

    def stir(self) -> None:
        """Look now, and read whether or not anything seems to have changed."""
        self._seen.clear()
        self._stirred.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._period_s):
                    await self._stirred.wait()
            except TimeoutError:
                pass
            self._stirred.clear()
            await self.look()

    async def look(self) -> None:
        """Look once at everything."""
        for each in self._followed:
            # Seen before it is read: a change while reading shows the next time.
            seen = await asyncio.to_thread(fingerprint, each.files)
            if seen != self._seen.get(each.what):
                self._seen[each.what] = seen
                await self._renew(each)
        self._after()

    async def _renew(self, each: Followed[Any]) -> None:
        try:
            found = await asyncio.to_thread(each.read)
        except (ConfigInvalid, OSError) as error:
            self.failures += 1
            _log.error("%s: not replaced, what was in force stays: %s", each.what, error)
            return
        each.adopt(found)
        self.reloads += 1
        _log.info("%s: replaced by what the files hold now", each.what)


def fingerprint(files: Sequence[Path]) -> tuple[object, ...]:
    """What differs if one of ``files`` was replaced or written to."""
    return tuple(_look(file) for file in files)


def _look(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
