"""Lines in the log about requests: a sample of all, those that took long, and those that failed.

Each kind within lines a second; what was left out is counted, and said once a second. No line holds a value, a key's
arguments, a token or a credential: only names that the configuration or the program has, numbers, and an id.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf, isfinite
from time import monotonic
from typing import Final, Protocol

from cluster.config import LogConfig
from cluster.noted import Noted
from cluster.tracing.seam import current
from snapring.errors import KeyInvalid, SnapringError
from snapring.keys import Key, parse

_SECOND: Final = 1.0
_KEYS_NAMED: Final = 16
"""Of so many keys of a request the caches are named."""

_ID: Final = re.compile(r"[!-~]{1,128}")


class Picked(Protocol):
    """A door, as far as its requests get a line."""

    def pick(self) -> None:
        """The next request of somebody gets a line, whatever becomes of it."""


class Log(Protocol):
    """Where lines go: an event, and fields."""

    def info(self, event: str, **fields: object) -> object:
        """What is usual."""

    def warning(self, event: str, **fields: object) -> object:
        """What an operator may want to look at."""


@dataclass(slots=True, kw_only=True)
class Request:
    """A request of ``door`` that came at monotonic ``began_s``; ``command`` is a name that the program knows.

    ``keys`` finds those that it names, in the tenant's words. ``tenant`` is the credential's, None without any. ``id``
    finds what the client calls it, if it does. It was picked if all that is read for it is noted.
    """

    door: str
    command: str
    began_s: float
    keys: Callable[[], Sequence[bytes]] = tuple
    tenant: str | None = None
    id: Callable[[], str] = str
    noted: Noted = field(default_factory=Noted)


class _Budget:
    """At most ``most`` in a second."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = self._left = most
        self._clock = clock
        self._since_s = -inf
        self.left_out = 0

    def takes(self) -> bool:
        """Whether there is room for one more; else it is counted as left out."""
        now_s = self._clock()
        if now_s - self._since_s >= _SECOND:
            self._since_s, self._left = now_s, self._most
        if self._left > 0:
            self._left -= 1
            return True
        self.left_out += 1
        return False


class Lines:
    """The lines of one node with ``caches``, into ``log``. ``written`` and ``left_out`` count them by kind.

    ``slow_s`` is from when on a request is slow, infinite where that is nobody's business; ``now_s`` the monotonic time
    by which that is judged.
    """

    def __init__(
        self,
        config: LogConfig,
        caches: Container[str],
        log: Log,
        *,
        clock: Callable[[], float] = monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._caches = caches
        self._log = log
        self.now_s = clock
        self._new_id = new_id
        self._per_s = config.requests
        self._says = config.request_lines > 0  # who wants none is told of none
        self._sample, self._slow, self._failed = (
            _Budget(most, clock) for most in (config.requests, config.request_lines, config.request_lines)
        )
        self._about = _Budget(1, clock)
        self._said = 0, 0
        self.slow_s = inf if config.slow_requests_s is None else config.slow_requests_s
        self.written = {"sampled": 0, "slow": 0, "failed": 0}

    def __repr__(self) -> str:
        return f"<Lines {self.written} left_out={self.left_out}>"

    @property
    def left_out(self) -> dict[str, int]:
        """Lines that were one too many in their second."""
        return {"slow": self._slow.left_out, "failed": self._failed.left_out}

    def picks(self) -> bool:
        """Whether a request that was picked gets its line: not where many were picked and come at once."""
        return self._per_s > 0 and self._sample.takes()

    def answered(self, request: Request) -> None:
        """``request`` has been answered; a line if it was picked or took long."""
        took_s, picked = self.now_s() - request.began_s, request.noted.thorough
        if took_s >= self.slow_s:
            if picked or self._slow.takes():
                self.written["slow"] += 1
                self._log.warning("slow request", **self._fields(request, took_s))
        elif picked:
            self.written["sampled"] += 1
            self._log.info("request", **self._fields(request, took_s))

    def failed(self, request: Request, error: BaseException | str) -> None:
        """``request`` has been answered with ``error``, an exception or its code; a line if there is room."""
        if request.noted.thorough or self.has_room():
            self.tell_failure(request, error)

    def has_room(self) -> bool:
        """Whether the next failure gets a line; else it is left out. A flood of failures costs no more than this."""
        return self._failed.takes()

    def tell_failure(self, request: Request, error: BaseException | str) -> None:
        """The line of one that there is room for."""
        code = error if isinstance(error, str) else getattr(error, "code", SnapringError.code)
        self.written["failed"] += 1
        fields = self._fields(request, self.now_s() - request.began_s)
        self._log.warning("failed request", **fields, error=code)

    async def run(self, doors: Sequence[Picked]) -> None:
        """Pick requests of ``doors``, and say what was left out, until cancelled."""
        while True:
            for door in doors if self._per_s else ():
                door.pick()
            self.say_left_out()
            await asyncio.sleep(_SECOND / max(1, self._per_s))

    def say_left_out(self) -> None:
        """One line about those that there was no room for since the last such line, unless there is room for none."""
        now = self._slow.left_out, self._failed.left_out
        if self._says and now != self._said and self._about.takes():
            slow, failed = (new - old for new, old in zip(now, self._said, strict=True))
            self._said = now
            self._log.warning("requests left out of the log", slow=slow, failed=failed)

    def _fields(self, request: Request, took_s: float) -> dict[str, object]:
        texts, noted = request.keys(), request.noted
        keys = [key for key in _parsed(islice(texts, _KEYS_NAMED)) if key.cache in self._caches]
        tenant = request.tenant or (keys[0].tenant if keys else None)
        fields: dict[str, object] = {"door": request.door, "command": request.command}
        if tenant is not None:
            fields["tenant"] = tenant
        if keys:
            fields["cache"] = ",".join(dict.fromkeys(key.cache for key in keys))
        if len(texts) > 1:
            fields["keys"] = len(texts)
        if noted.source is not None:
            fields |= _answer(noted, len(texts))
        fields["response_time_ms"] = round(took_s * 1000, 3)
        fields["request_id"] = request.id() or self._new_id()
        traced = current()
        if span := noted.span or (traced and (traced.trace_id, traced.span_id)):
            fields["trace_id"], fields["span_id"] = span
        return fields


class _Nowhere:
    def info(self, event: str, **fields: object) -> None:
        """Gone."""

    def warning(self, event: str, **fields: object) -> None:
        """Gone."""


def no_lines() -> Lines:
    """Lines of nothing."""
    return Lines(LogConfig(requests=0, slow_requests_s=None, request_lines=0), (), _Nowhere())


def _answer(noted: Noted, keys: int) -> dict[str, object]:
    assert noted.source is not None, "something was noted"
    hits = max(0, keys - noted.missed)
    return {
        **({"hits": hits} if keys > 1 else {}),
        "source": noted.source.value,
        "cache_hit": hits == keys,
        "state": noted.state.value,
        "age_ms": round(noted.age_s * 1000, 3) if isfinite(noted.age_s) else -1,
    }


def _parsed(texts: Iterable[bytes]) -> Iterable[Key]:
    for text in texts:
        try:
            yield parse(text)[0]
        except KeyInvalid:
            continue


def sane_id(text: object) -> str:
    """``text`` if a client may name its request so: printable ASCII without blanks, at most 128; else nothing."""
    return text if isinstance(text, str) and _ID.fullmatch(text) else ""
