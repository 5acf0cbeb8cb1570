"""What a session has seen, as the tokens that its next read must not go behind. Pure.

Tokens are opaque here, so that two of them cannot be compared. What is known comes from the order of events. The
answer to a read that was asked for at least some tokens is at or after all of them: it takes their place. A
write that was sent after a snapshot had been seen committed after that snapshot: whatever sees the write sees
what the snapshot saw, so the write's ticket takes its place too. It does not take the place of a token that came
from elsewhere, which may be the ticket of a transaction that has not committed yet.

So one token is left after each step of a session that does one thing at a time; and of one that does several, no
more than it does at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from snapring.errors import CallInvalid

SEPARATOR: Final = "."
"""Between the tokens of a session; not a character of any."""

MAX_TOKENS: Final = 1000
"""Most tokens in one text; what a node reads in one command."""


@dataclass(frozen=True, slots=True)
class Floors:
    """The tokens to see: ``seen`` were answers to this session, ``owed`` came from elsewhere.

    ``look``: how many things were learnt that no token tells of, so that a snapshot must be taken first.
    """

    seen: frozenset[str] = frozenset()
    owed: frozenset[str] = frozenset()
    look: int = 0

    @property
    def tokens(self) -> tuple[str, ...]:
        """All of them, in a fixed order."""
        return tuple(sorted(self.seen | self.owed))

    def read(self, asked: Iterable[str], as_of: str) -> "Floors":
        """After an answer as of ``as_of`` that was asked for at least the tokens ``asked``."""
        asked = frozenset(asked)
        return replace(self, seen=(self.seen - asked) | {as_of}, owed=self.owed - asked)

    def wrote(self, before: "Floors", ticket: str) -> "Floors":
        """After a write that was sent when ``before`` was known."""
        return replace(self, seen=(self.seen - before.seen) | {ticket})

    def owing(self, tokens: Iterable[str]) -> "Floors":
        """When ``tokens`` came from elsewhere."""
        return replace(self, owed=self.owed | frozenset(tokens))

    def learnt(self) -> "Floors":
        """After a refusal told of something that no token tells of."""
        return replace(self, look=self.look + 1)

    def looked(self, before: "Floors", token: str) -> "Floors":
        """After the snapshot ``token`` was taken, which was asked for when ``before`` was known."""
        return replace(self, seen=self.seen | {token}, look=self.look - before.look)

    def without(self, tokens: Iterable[str]) -> "Floors":
        """When ``tokens`` have been refused, and whoever relies on them has been told."""
        tokens = frozenset(tokens)
        return replace(self, seen=self.seen - tokens, owed=self.owed - tokens)


NOTHING: Final = Floors()


def split(text: str) -> tuple[str, ...]:
    """The tokens in ``text``: one token, or what a session exported. Raises `CallInvalid`."""
    if not isinstance(text, str):
        raise CallInvalid(f"a token is text, not {type(text).__name__}: as_of of a reply, for one")
    tokens = tuple(text.split(SEPARATOR))
    if len(tokens) > MAX_TOKENS or not all(token and token.isascii() for token in tokens):
        raise CallInvalid("expected a token: as_of of a reply, token of a write or of a session, or token()")
    return tokens
