"""What one client sends, heard in its tenant's turns: what comes out of turn is kept until there is one.

It is heard in pieces, so that a turn ends soon after its time, and as long as commands are executed. Of what waits,
about `_MOST_BYTES` are kept, and what one read brings besides; meanwhile nothing more is read.
"""

from math import inf
from time import monotonic
from typing import Final, Protocol

from cluster.doors.resp.shares import Share

_PIECE_BYTES: Final = 4096
"""Most of a turn, if it is a run of hits."""

_MOST_BYTES: Final = 64 * 1024
_NEXT: Final = b"\r\n*"
"""Where a command begins, mostly."""


class Ear(Protocol):
    """Who hears."""

    @property
    def hears(self) -> bool:
        """Whether it is to hear anything more as yet."""

    def hear(self, data: bytes, now: float) -> None:
        """The next piece, at monotonic ``now``."""

    def settle(self) -> None:
        """What has been kept, or no longer is, may change whether more is to be read."""


class _Deaf:
    """That of who has gone."""

    hears = False

    def hear(self, data: bytes, now: float) -> None:
        """Nothing."""

    def settle(self) -> None:
        """There is nothing to read."""


_DEAF: Final = _Deaf()


class Hearing:
    """What ``ear`` has not heard, and whose turn it must be for that: ``share``'s."""

    __slots__ = ("_ear", "_kept", "_waiting", "share")

    def __init__(self, ear: Ear, share: Share) -> None:
        self._ear: Ear = ear
        self._kept = b""
        self._waiting = False  # for a turn, or having one
        self.share = share

    def __repr__(self) -> str:
        return f"<Hearing kept={len(self._kept)} {self.share!r}>"

    def __bool__(self) -> bool:
        return bool(self._kept)

    @property
    def has_room(self) -> bool:
        """Whether more may be received."""
        return len(self._kept) <= _MOST_BYTES

    def received(self, data: bytes, now: float) -> None:
        """``data`` has come at monotonic ``now``."""
        share = self.share
        if share.free and not self._kept and not self._waiting:
            share.until_s = inf
            self._ear.hear(data, now)
            share.until_s = -inf
        elif self._kept or self._waiting or not share.begin(now):
            self._kept += data
            self.go_on()
            if not self.has_room:
                self._ear.settle()
        elif len(data) <= _PIECE_BYTES:
            self._ear.hear(data, now)
            share.end()
        else:
            self._kept = data
            self._in_turn(share, now)
            share.end()

    def go_on(self) -> None:
        """Hear what is kept as soon as there is a turn."""
        if self._kept and not self._waiting and self._ear.hears:
            self._waiting = True
            self.share.wait(self._called)

    def end(self) -> None:
        """The rest is not heard, and the ear is not held any longer."""
        self._kept = b""
        self._ear = _DEAF

    def _called(self) -> None:
        self._waiting = False
        self._in_turn(self.share, monotonic())

    def _in_turn(self, share: Share, now: float) -> None:
        ear, had_room, self._waiting = self._ear, self.has_room, True
        while self._kept and ear.hears:
            data, self._kept = _cut(self._kept)
            ear.hear(data, now)
            if self._kept and (now := monotonic()) >= share.until_s:
                break
        self._waiting = False
        self.go_on()
        if not had_room:
            ear.settle()


def _cut(data: bytes) -> tuple[bytes, bytes]:
    if len(data) <= _PIECE_BYTES:
        return data, b""
    end = data.rfind(_NEXT, 0, _PIECE_BYTES) + 2
    end = end if end > 1 else _PIECE_BYTES
    return data[:end], data[end:]
