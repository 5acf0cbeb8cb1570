"""The text of a key: ``tenant/cache:arg:arg``, with or without a token.

One logical key has one canonical text, and the canonical text is the key's identity everywhere: in
memory, in a flight, on the ring. The default tenant is left out of it, so ``default/users:1`` and
``users:1`` are the same key, written ``users:1``.

Grammar (bytes, at most `MAX_KEY_BYTES`; UTF-8)::

    request  = key | "{" key "}@" token
    key      = [name "/"] name *(":" arg)
    name     = a letter, then letters, digits, "_" or "-"
    arg      = any character; ":" "@" "{" "}" "%" "/" and control bytes as %XX
"""

import re
from binascii import crc_hqx
from dataclasses import dataclass
from typing import Final

from snapring.errors import KeyInvalid

MAX_KEY_BYTES: Final = 1024
MAX_TOKEN_BYTES: Final = 16_384
SLOTS: Final = 16_384
DEFAULT_TENANT: Final = "default"

_NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*")
_ARG: Final = re.compile(rb"(?:[^\x00-\x1f\x7f:@{}%/]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_PLAIN: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_-]*)(?::[ -$&-.0-9;-?A-Z\[-z|~]*)*")
_MUST_ESCAPE: Final = re.compile(rb"[\x00-\x1f\x7f:@{}%/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A parsed key. ``args`` are the decoded texts of the query's ``$1 … $n``."""

    tenant: str
    cache: str
    args: tuple[str, ...]

    def __str__(self) -> str:
        head = self.cache if self.tenant == DEFAULT_TENANT else f"{self.tenant}/{self.cache}"
        return ":".join((head, *map(_escape, self.args)))

    @property
    def canonical(self) -> bytes:
        """The key's one canonical text, UTF-8: its identity."""
        return str(self).encode()

    @property
    def slot(self) -> int:
        """The key's place on the ring, 0 to 16,383; the same as Redis Cluster computes."""
        return slot_of(self.canonical)


def slot_of(key: bytes) -> int:
    """CRC16 (XMODEM) modulo 16,384 of the hash tag, or of the whole key where it has none.

    The rule of the Redis Cluster specification, so a cluster-aware client reaches the same slot.
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def cache_of_plain(text: bytes) -> bytes | None:
    """The cache's name if ``text`` surely is a key's canonical text, without being parsed; else None.

    It is for most keys: without a tenant or a token, and with arguments of ASCII that are not escaped.
    """
    found = _PLAIN.fullmatch(text)
    return found[1] if found is not None and len(text) <= MAX_KEY_BYTES else None


def parse(text: bytes) -> tuple[Key, str | None]:
    """The key in ``text`` and, where one is attached, its token (unverified).

    Raises `KeyInvalid` naming the byte at which the text stops being a key.
    """
    if not text.startswith(b"{"):
        return _parse_key(text, 0, len(text)), None
    end = text.find(b"}@")
    if end < 0:
        raise KeyInvalid("'{' opens a key with a token, but no '}@' follows", position=len(text))
    token = text[end + 2 :]
    if not 0 < len(token) <= MAX_TOKEN_BYTES or not token.isascii():
        raise KeyInvalid(f"expected a token of 1 to {MAX_TOKEN_BYTES} bytes", position=end + 2)
    return _parse_key(text, 1, end), token.decode("ascii")


def _parse_key(text: bytes, start: int, end: int) -> Key:
    if end - start > MAX_KEY_BYTES:
        raise KeyInvalid(f"the key is longer than {MAX_KEY_BYTES} bytes", position=start + MAX_KEY_BYTES)
    first = _name(text, start, end, "a tenant or cache name")
    tenant, cache, at = b"", text[start:first], first
    if text[at : at + 1] == b"/" and at < end:
        tenant = cache
        at = _name(text, at + 1, end, "a cache name")
        cache = text[first + 1 : at]
    args = []
    while at < end:
        if text[at : at + 1] != b":":
            raise KeyInvalid("expected ':' before an argument", position=at)
        stop = _arg_end(text, at + 1, end)
        args.append(_unescape(text[at + 1 : stop], at + 1))
        at = stop
    return Key(tenant=tenant.decode() or DEFAULT_TENANT, cache=cache.decode(), args=tuple(args))


def _name(text: bytes, start: int, end: int, what: str) -> int:
    match = _NAME.match(text, start, end)
    if match is None:
        raise KeyInvalid(f"expected {what} (a letter, then letters, digits, '_' or '-')", position=start)
    return match.end()


def _arg_end(text: bytes, start: int, end: int) -> int:
    match = _ARG.match(text, start, end)
    assert match is not None, "the pattern matches the empty text"
    stop = match.end()
    if stop < end and text[stop : stop + 1] != b":":
        raise KeyInvalid(
            f"{chr(text[stop])!r} must be written %{text[stop]:02X} inside an argument", position=stop
        )
    return stop


def _unescape(arg: bytes, position: int) -> str:
    raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), arg) if b"%" in arg else arg
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KeyInvalid("the argument is not UTF-8", position=position) from error


def _escape(arg: str) -> str:
    raw = arg.encode()
    return _MUST_ESCAPE.sub(lambda found: b"%%%02X" % found[0][0], raw).decode()
