"""What a session of the proof carries along is the newest it was shown, whatever order answers come in."""

from typing import Final

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.proof.habits import Known

SECRET: Final = b"a secret of this proof"
CODEC: Final = TokenCodec([SECRET])


def token(xmax: int, incarnation: int = 7) -> bytes:
    """The name of a snapshot that sees everything below ``xmax``."""
    return CODEC.encode(Snapshot(xmax, xmax), incarnation).encode()


def test_keeps_what_sees_more() -> None:
    """Answers of one round come from several moments."""
    known = Known(SECRET)
    assert known.newer(b"", token(5)) == token(5)
    assert known.newer(token(5), token(9)) == token(9)
    assert known.newer(token(9), token(5)) == token(9)


def test_keeps_the_later_incarnation() -> None:
    """An answer given before a crash may come after one that was given after it; xids do not compare."""
    known = Known(SECRET)
    before, after = token(9, incarnation=7), token(5, incarnation=8)
    assert known.newer(b"", before) == before
    assert known.newer(before, after) == after
    assert known.newer(after, before) == after
