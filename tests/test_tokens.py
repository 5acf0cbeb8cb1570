"""Tokens: round trip, and nothing but the cluster's own tokens of this incarnation gets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.snapshots import MAX_XID, Snapshot
from cluster.tokens import Position, Ticket, TokenCodec
from snapring.errors import TokenForeign, TokenInvalid

SECRET = b"an old secret of the cluster"
CODEC = TokenCodec([SECRET])
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

incarnations = st.integers(0, 2**64 - 1)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    """Any snapshot or ticket, up to the largest 64-bit transaction id."""
    if draw(st.booleans()):
        return Ticket(draw(st.integers(1, MAX_XID)))
    xip = sorted(draw(st.sets(st.integers(1, MAX_XID - 1), max_size=20)))
    xmin = draw(st.integers(1, xip[0] if xip else MAX_XID))
    return Snapshot(xmin, draw(st.integers((xip[-1] + 1) if xip else xmin, MAX_XID)), tuple(xip))


@given(positions(), incarnations)
def test_round_trip(position: Position, incarnation: int) -> None:
    """What was encoded is decoded, and the text is safe in a URL and in a key."""
    token = CODEC.encode(position, incarnation)
    assert CODEC.decode(token, incarnation) == position
    assert set(token) <= set(ALPHABET)


@given(positions(), incarnations, st.data())
def test_any_changed_character_is_refused(position: Position, incarnation: int, data: st.DataObject) -> None:
    """No single character can be replaced, dropped or added."""
    token = CODEC.encode(position, incarnation)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda letter: letter != token[at]))
    for forged in (token[:at] + other + token[at + 1 :], token[:at] + token[at + 1 :], token + other):
        with pytest.raises(TokenInvalid):
            CODEC.decode(forged, incarnation)


@given(st.text(max_size=80))
def test_rubbish_is_refused(text: str) -> None:
    """Any text that was not signed raises TokenInvalid and nothing else."""
    with pytest.raises(TokenInvalid):
        CODEC.decode(text, 1)


def test_another_incarnation_is_foreign() -> None:
    """A genuine token of another incarnation is told apart from a broken one."""
    token = CODEC.encode(Ticket(7), 1)
    with pytest.raises(TokenForeign):
        CODEC.decode(token, 2)


def test_secrets_rotate() -> None:
    """After rotation the new secret signs, both verify, and a retired one no longer does."""
    new = b"a new secret of the cluster"
    both = TokenCodec([new, SECRET])
    old_token = CODEC.encode(Ticket(7), 1)
    assert both.decode(old_token, 1) == Ticket(7)
    assert TokenCodec([new]).decode(both.encode(Ticket(7), 1), 1) == Ticket(7)
    with pytest.raises(TokenInvalid, match="signed"):
        TokenCodec([new]).decode(old_token, 1)


def test_a_short_secret_is_refused() -> None:
    """A secret that can be guessed is no secret."""
    with pytest.raises(ValueError, match="16 bytes"):
        TokenCodec([b"short"])


def test_the_secret_shows_in_no_repr() -> None:
    """A codec can be logged."""
    assert SECRET.decode() not in repr(CODEC)


def test_an_oversized_token_is_refused_before_it_is_decoded() -> None:
    """Length is bounded."""
    with pytest.raises(TokenInvalid, match="longer"):
        CODEC.decode("A" * 20_000, 1)
