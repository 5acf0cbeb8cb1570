"""What readers ask for: their habits, and what they know in common."""

from collections import deque
from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Final

import hiredis

from cluster.snapshots import Snapshot
from cluster.tokens import Ticket, TokenCodec
from scripts.proof.naming import Named, named
from scripts.proof.replies import NO_SESSION, Asked

_RECENT: Final = 1000
_LATELY: Final = 8
_BACK: Final = 25
_STRONG_IN_SESSION: Final = 0.04
_EXACT_IN_SESSION: Final = 0.2
_STRONG_AS_WITNESS: Final = 0.3
_OPTIONS: Final = {
    Asked.BOUNDED: (),
    Asked.STRONG: (b"STRONG",),
    Asked.ATLEAST: (b"ATLEAST",),
    Asked.EXACT: (b"EXACT",),
}


class Question:
    """One SNAP.GET; ``command`` is how it is sent."""

    __slots__ = ("asked", "command", "key", "token")

    def __init__(self, key: bytes, asked: Asked = Asked.BOUNDED, token: bytes = b"") -> None:
        self.key, self.asked, self.token = key, asked, token
        self.command = packed(b"SNAP.GET", key, *_OPTIONS[asked], *filter(None, (token,)))


class Known:
    """What the readers know in common: names of recent snapshots, and transactions acknowledged lately."""

    def __init__(self, secret: bytes) -> None:
        self._codec = TokenCodec([secret])
        self._snapshots: dict[bytes, Named | str] = {}
        self._incarnations: list[int] = []
        self.tokens: deque[bytes] = deque(maxlen=_RECENT)
        self.tickets: deque[bytes] = deque(maxlen=_LATELY)
        self.sessions = count(NO_SESSION + 1)

    def saw(self, token: bytes) -> None:
        """A reply named this snapshot."""
        if not self.tokens or self.tokens[-1] != token:
            self.tokens.append(token)

    def acknowledged(self, incarnation: int, xid: int) -> None:
        """A commit was acknowledged."""
        self.tickets.append(self._codec.encode(Ticket(xid), incarnation).encode())

    def newer(self, one: bytes, other: bytes) -> bytes:
        """The one that sees more; ``other`` where there is no telling.

        An answer of an incarnation that is over may come after one of the next, before which it was given.
        """
        if one == other:
            return other
        before, after = self._named(one), self._named(other)
        if not isinstance(before, Named) or not isinstance(after, Named):
            return other
        if before.incarnation != after.incarnation:
            return other if self._order(before) < self._order(after) else one
        first, second = before.position, after.position
        if isinstance(first, Snapshot) and isinstance(second, Snapshot) and second.within(first):
            return one
        return other

    def _order(self, name: Named) -> int:
        return self._incarnations.index(name.incarnation)

    def _named(self, token: bytes) -> Named | str:
        if token not in self._snapshots:
            name = self._snapshots[token] = named(token, self._codec)
            if isinstance(name, Named) and name.incarnation not in self._incarnations:
                self._incarnations.append(name.incarnation)
        return self._snapshots[token]


class Plain:
    """Asks for nothing in particular."""

    session = NO_SESSION

    def __init__(self, keys: Sequence[bytes], known: Known, rng: Random) -> None:
        self.keys, self.known, self.rng = keys, known, rng
        self._questions = {key: Question(key) for key in keys}

    def questions(self, depth: int) -> list[Question]:
        """What to ask in the next round."""
        return [self._questions[key] for key in self.rng.choices(self.keys, k=depth)]

    def shown(self, token: bytes) -> None:
        """A reply of this round named that snapshot."""
        self.known.saw(token)

    def failed(self) -> None:
        """A read of this round was refused, or the connection broke."""


class Session(Plain):
    """Carries the newest snapshot it was shown, and never wants to see less again."""

    def __init__(self, keys: Sequence[bytes], known: Known, rng: Random) -> None:
        super().__init__(keys, known, rng)
        self._newest = b""
        self.session = next(known.sessions)

    def questions(self, depth: int) -> list[Question]:
        """Most ask for at least what was shown."""
        return [Question(key, *self._wish()) for key in self.rng.choices(self.keys, k=depth)]

    def shown(self, token: bytes) -> None:
        """Remember the newest."""
        self._newest = self.known.newer(self._newest, token)

    def failed(self) -> None:
        """Begin anew: the token may be of another incarnation."""
        self._newest, self.session = b"", next(self.known.sessions)

    def _wish(self) -> tuple[Asked, bytes]:
        if not self._newest:
            return Asked.BOUNDED, b""
        chance = self.rng.random()
        if chance < _STRONG_IN_SESSION:
            return Asked.STRONG, b""
        exact = chance < _STRONG_IN_SESSION + _EXACT_IN_SESSION
        return Asked.EXACT if exact else Asked.ATLEAST, self._newest


class Witness(Plain):
    """Knows of commits, and wants to see them."""

    def questions(self, depth: int) -> list[Question]:
        """Tickets, and strong reads."""
        return [Question(key, *self._wish()) for key in self.rng.choices(self.keys, k=depth)]

    def _wish(self) -> tuple[Asked, bytes]:
        if not self.known.tickets or self.rng.random() < _STRONG_AS_WITNESS:
            return Asked.STRONG, b""
        return Asked.ATLEAST, self.rng.choice(self.known.tickets)


class Historian(Plain):
    """Asks for exact snapshots that someone was shown: mostly a moment ago, now and then a good while."""

    def questions(self, depth: int) -> list[Question]:
        """Several keys at the same snapshot."""
        if not self.known.tokens:
            return super().questions(1)
        back = min(int(self.rng.expovariate(1 / _BACK) ** 1.5), len(self.known.tokens) - 1)
        token = self.known.tokens[-1 - back]
        return [Question(key, Asked.EXACT, token) for key in self.rng.choices(self.keys, k=depth)]


HABITS: Final = {"plain": Plain, "session": Session, "witness": Witness, "historian": Historian}


def packed(*words: bytes) -> bytes:
    """A command as it is sent."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return command
