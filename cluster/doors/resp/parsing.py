"""A client's bytes -> its commands, whatever the client sends. Pure.

hiredis' reader decodes. It was made for the replies of a server one trusts: the mere header of an array
makes it reserve memory for that many elements, and arrays nest without end. So nothing reaches it before
its structure has been checked here, header by header: a command is an array of bulk strings with at most
``max_words`` words and ``max_bytes`` bytes, headers included. A larger one is refused when it is
announced, not when it has arrived. What is buffered for an unfinished command is what was received of it.

A line that does not begin with ``*`` is an inline command, as typed into telnet. As in Redis, the two
bytes that end a bulk string are not looked at, and an empty array or line is no command.
"""

import re
from typing import Final

import hiredis

_ARRAY: Final = ord("*")
_END: Final = b"\r\n"
_MAX_HEADER_BYTES: Final = 32
_MAX_INLINE_BYTES: Final = 64 * 1024
_NUMBER: Final = re.compile(rb"0|[1-9]\d{0,17}")
_BULKS: Final = {b"$%d" % size: size for size in range(256)}
"""The headers of short bulk strings, which are most of them."""

_WORD: Final = re.compile(
    rb"""\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<bare>[^\s"']\S*))(?=\s|$)""",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_BROWSER_WORDS: Final = frozenset({b"POST", b"HOST:"})


class CommandParser:
    """The commands in one client's stream of bytes, however it is cut into pieces.

    ``idle`` is True between two commands with nothing buffered. After a breach of the protocol, ``error``
    says what it was and nothing more is parsed; the commands before it have been returned.
    """

    __slots__ = (
        "_line", "_max_bytes", "_max_words", "_missing", "_reader", "_size_bytes", "_words", "error", "idle",
    )  # fmt: skip

    def __init__(self, *, max_bytes: int, max_words: int) -> None:
        self._reader = hiredis.Reader(notEnoughData=False)
        self._max_bytes = max_bytes
        self._max_words = max_words
        self._line = b""  # a header or inline line that has not ended
        self._words = 0  # bulk strings of the present array still to be announced
        self._missing = 0  # bytes of the present bulk string still to be received
        self._size_bytes = 0  # of the present command, as announced so far
        self.error: str | None = None
        self.idle = True

    def allow(self, *, max_bytes: int, max_words: int) -> None:
        """Take commands up to this size from the next one on."""
        self._max_bytes = max_bytes
        self._max_words = max_words

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that ``data`` completes, in order; none is empty."""
        commands: list[list[bytes]] = []
        if self._line:
            data, self._line = self._line + data, b""
        at = 0
        while at < len(data) and self.error is None:
            if self._missing or self._words or data[at] == _ARRAY:
                at = self._arrays(data, at, commands)
            else:
                at = self._inline(data, at, commands)
        self.idle = not (self._missing or self._words or self._line or self.error)
        return commands

    def _arrays(self, data: bytes, start: int, commands: list[list[bytes]]) -> int:
        """Give hiredis what is sound from ``start`` on; returns where something else begins."""
        at = self._check(data, start)
        self._reader.feed(data, start, at - start)
        commands.extend(filter(None, iter(self._reader.gets, False)))
        return len(data) if self._line else at

    def _check(self, data: bytes, at: int) -> int:
        """Walk over headers and jump over contents, up to an inline command, an error or the end."""
        end = len(data)
        at += self._missing
        self._missing = 0
        while at < end and (self._words or data[at] == _ARRAY):
            stop = data.find(_END, at, at + _MAX_HEADER_BYTES)
            if stop < 0:
                self._keep(data[at:], _MAX_HEADER_BYTES, "too big count string")
                return at
            header = data[at:stop]
            size = self._bulk(header) if self._words else self._array(header)
            if size < 0:
                return at
            at = stop + 2 + size
        if at > end:
            self._missing = at - end
            return end
        return at

    def _array(self, header: bytes) -> int:
        count = _number(header[1:])
        if count is None or count > self._max_words:
            self.error = f"invalid multibulk length: expected 0 to {self._max_words} words"
            return -1
        self._words = count
        self._size_bytes = len(header) + 2
        return 0

    def _bulk(self, header: bytes) -> int:
        size = _BULKS.get(header)
        if size is None:
            if not header.startswith(b"$"):
                self.error = f"expected '$', got {header[:1].decode('latin-1')!r}"
                return -1
            size = _number(header[1:])
        if size is None:
            self.error = "invalid bulk length"
            return -1
        self._size_bytes += len(header) + size + 4
        if self._size_bytes > self._max_bytes:
            self.error = f"invalid bulk length: the request is larger than {self._max_bytes} bytes"
            return -1
        self._words -= 1
        return size + 2

    def _inline(self, data: bytes, at: int, commands: list[list[bytes]]) -> int:
        most = min(_MAX_INLINE_BYTES, self._max_bytes)
        stop = data.find(b"\n", at, at + most)
        if stop < 0:
            self._keep(data[at:], most, "too big inline request")
            return len(data)
        words = _split(data[at:stop])
        if words is None:
            self.error = "unbalanced quotes in request"
        elif len(words) > self._max_words:
            self.error = f"more than {self._max_words} words"
        elif words and words[0].upper() in _BROWSER_WORDS:
            self.error = "this is not an HTTP server"
        elif words:
            commands.append(words)
        return stop + 1

    def _keep(self, line: bytes, most: int, error: str) -> None:
        if len(line) >= most:
            self.error = error
        else:
            self._line = line


def _number(digits: bytes) -> int | None:
    return int(digits) if _NUMBER.fullmatch(digits) else None


def _split(line: bytes) -> list[bytes] | None:
    """The words of an inline command; None where a quote does not end, or ends inside a word."""
    line = line.rstrip()
    words, at = [], 0
    while at < len(line):
        found = _WORD.match(line, at)
        if found is None:
            return None
        kind = found.lastgroup
        assert kind is not None, "every alternative is named"
        words.append(_plain(kind, found[kind]))
        at = found.end()
    return words


def _plain(kind: str, text: bytes) -> bytes:
    if kind == "double":
        return _ESCAPE.sub(_unescaped, text)
    return text.replace(b"\\'", b"'") if kind == "single" else text


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return bytes((int(found[1], 16),))
    return _ESCAPED.get(found[2], found[2])
