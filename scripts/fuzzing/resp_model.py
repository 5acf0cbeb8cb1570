"""What a stream of bytes says in RESP, read all at once and as plainly as can be: what the door's answers are held to.

It shares no code with the door. As there: an array of bulk strings or a line with words is a command, the two bytes
after a bulk string may be any, and an empty command is none.
"""

from dataclasses import dataclass
from typing import Final

MAX_HEADER_BYTES: Final = 32
MAX_INLINE_BYTES: Final = 64 * 1024

_SPACE: Final = b" \t\n\r\x0b\x0c"
_ESCAPES: Final = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


@dataclass(frozen=True, slots=True)
class Said:
    """The ``commands`` that are whole, and whether what comes behind them is ``wrong``."""

    commands: list[list[bytes]]
    wrong: bool


class _Wrong(Exception):
    """The protocol is broken."""


class _Unfinished(Exception):
    """The stream ends within a command."""


def read(stream: bytes, *, max_bytes: int, max_words: int) -> Said:
    """What ``stream`` says to a door with these bounds."""
    commands: list[list[bytes]] = []
    at = 0
    try:
        while at < len(stream):
            reading = _array if stream[at : at + 1] == b"*" else _line
            words, at = reading(stream, at, max_bytes, max_words)
            if words:
                commands.append(words)
    except _Unfinished:
        return Said(commands, wrong=False)
    except _Wrong:
        return Said(commands, wrong=True)
    return Said(commands, wrong=False)


def _array(stream: bytes, at: int, max_bytes: int, max_words: int) -> tuple[list[bytes], int]:
    count, size, at = _header(stream, at, b"*")
    if count > max_words:
        raise _Wrong
    words = []
    for _ in range(count):
        length, taken, at = _header(stream, at, b"$")
        size += taken + length + 2
        if size > max_bytes:
            raise _Wrong
        words.append(stream[at : at + length])
        at += length + 2
    if at > len(stream):
        raise _Unfinished
    return words, at


def _header(stream: bytes, at: int, kind: bytes) -> tuple[int, int, int]:
    """The number in a header, its length with its end, and where it ends."""
    if at >= len(stream):
        raise _Unfinished
    header, end, _ = stream[at : at + MAX_HEADER_BYTES].partition(b"\r\n")
    if not end:
        raise _Wrong if len(stream) - at >= MAX_HEADER_BYTES else _Unfinished
    digits = header[1:]
    if (
        header[:1] != kind
        or not digits.isdigit()
        or len(digits) > 18
        or (digits[:1] == b"0" and digits != b"0")
    ):
        raise _Wrong
    return int(digits), len(header) + 2, at + len(header) + 2


def _line(stream: bytes, at: int, max_bytes: int, max_words: int) -> tuple[list[bytes], int]:
    most = min(MAX_INLINE_BYTES, max_bytes)
    line, end, _ = stream[at : at + most].partition(b"\n")
    if not end:
        raise _Wrong if len(stream) - at >= most else _Unfinished
    words = _words(line)
    if len(words) > max_words or (words and words[0].upper() in (b"POST", b"HOST:")):
        raise _Wrong
    return words, at + len(line) + 1


def _words(line: bytes) -> list[bytes]:
    words: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _SPACE:
            at += 1
        if at == len(line):
            return words
        word, at = _quoted(line, at) if line[at] in b"\"'" else _bare(line, at)
        words.append(word)


def _bare(line: bytes, at: int) -> tuple[bytes, int]:
    stop = at
    while stop < len(line) and line[stop] not in _SPACE:
        stop += 1
    return line[at:stop], stop


def _quoted(line: bytes, at: int) -> tuple[bytes, int]:
    quote, word = line[at], bytearray()
    at += 1
    while at < len(line) and line[at] != quote:
        if line[at : at + 1] == b"\\" and at + 1 < len(line):
            taken, at = _escaped(line, at, quote)
            word += taken
        else:
            word.append(line[at])
            at += 1
    if at >= len(line) or (at + 1 < len(line) and line[at + 1] not in _SPACE):
        raise _Wrong
    return bytes(word), at + 1


def _escaped(line: bytes, at: int, quote: int) -> tuple[bytes, int]:
    letter, digits = line[at + 1], line[at + 2 : at + 4]
    if quote == ord("'"):
        return (b"'" if letter == quote else line[at : at + 2]), at + 2
    if (
        letter == ord("x")
        and len(digits) == 2
        and all(chr(digit) in "0123456789abcdefABCDEF" for digit in digits)
    ):
        return bytes([int(digits, 16)]), at + 4
    return bytes([_ESCAPES.get(letter, letter)]), at + 2
