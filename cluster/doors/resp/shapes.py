"""What a GET looks like on the wire: ``*2 $3 GET $<size> <key>``, each followed by CRLF. Pure.

Nearly every command is one, and nearly all of its bytes are known once its length is: the tables below
give, for a length, what must stand before the key. So a GET is recognised by comparing, not by parsing.
"""

from typing import Final

from snapring.keys import MAX_KEY_BYTES

UPPER_GET: Final = b"*2\r\n$3\r\nGET\r\n$"
LOWER_GET: Final = b"*2\r\n$3\r\nget\r\n$"
GET_BYTES: Final = len(UPPER_GET)


def _tails() -> list[tuple[bytes, int]]:
    """By the length of what follows ``UPPER_GET``: the size that it announces, and where the key begins.

    Where no key gives this length, something that no text begins with.
    """
    sizes = [b"%d\r\n" % size for size in range(MAX_KEY_BYTES + 1)]
    lengths = {len(announced) + size + 2: (announced, len(announced)) for size, announced in enumerate(sizes)}
    return [lengths.get(length, (b"-", 0)) for length in range(max(lengths) + 1)]


TAILS: Final = _tails()
MAX_TAIL_BYTES: Final = len(TAILS) - 1

GETS: Final = [(b"-", b"-", 0)] * GET_BYTES + [
    (UPPER_GET + announced, LOWER_GET + announced, GET_BYTES + at) if at else (b"-", b"-", 0)
    for announced, at in TAILS
]
"""By the length of a whole GET: what stands before its key, in upper and in lower case, and where it ends."""

MAX_GET_BYTES: Final = len(GETS) - 1

_SNAP_GET: Final = b"*2\r\n$8\r\nSNAP.GET\r\n$"
SNAP_GETS: Final = [(b"-", 0)] * len(_SNAP_GET) + [
    (_SNAP_GET + announced, len(_SNAP_GET) + at) if at else (b"-", 0) for announced, at in TAILS
]
"""By the length of a whole SNAP.GET without options: what stands before its key, and where it ends."""

MAX_SNAP_GET_BYTES: Final = len(SNAP_GETS) - 1
