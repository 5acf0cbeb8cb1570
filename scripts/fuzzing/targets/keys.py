"""The text of keys: any text is a key whose canonical text is the same key, or is refused where it breaks."""

from collections.abc import Iterable
from typing import Final

from cluster.access.tenancy import Reach
from scripts.fuzzing.choices import Choices
from scripts.fuzzing.target import Stand, Target, hold
from snapring.errors import KeyInvalid, PermissionDenied
from snapring.keys import (
    DEFAULT_TENANT,
    MAX_KEY_BYTES,
    MAX_TOKEN_BYTES,
    SLOTS,
    Key,
    cache_of_plain,
    parse,
    slot_of,
)

_TENANTS: Final = (DEFAULT_TENANT, "acme", "a", "acme-2")
_CACHES: Final = ("users", "user_by_id", "u", "A-b_9")
_REACHES: Final = {tenant: Reach(tenant, closed=("closed",)) for tenant in _TENANTS}


def made(_stand: Stand) -> Target:
    """The target."""
    return Keys()


class Keys(Target):
    """Each input is read as a key's text, and as choices of which a key is made."""

    max_bytes = 2048
    words = (
        b"{",
        b"}@",
        b"}",
        b"/",
        b":",
        b"%2F",
        b"%C3%A9",
        b"\xc3\xa9",
        b"%",
        b"default/",
        b"acme/",
        b"%00",
        b"@",
    )

    def seeds(self) -> Iterable[bytes]:
        """Keys of every form, and others that are nearly keys."""
        texts = (
            "users:1", "default/users:1", "acme/users:1:2", "{users:1}@TOKEN", "{acme/users:a%3Ab}@T", "users",
            "users:", "users::", "users:é%20", "a/b/c", "{users:1}", "{}@", "users:%C3", "1users", "users:{a}", "closed:1",
        )  # fmt: skip
        yield from map(str.encode, texts)
        yield b"users:" + b"x" * MAX_KEY_BYTES
        yield b"{users:1}@" + b"x" * 1900

    def attempt(self, data: bytes) -> None:
        """As a text, with and without the caller's tenant; then as choices."""
        self._text(data)
        self._within(data)
        self._made(Choices(data))
        hold(slot_of(data) == _redis_slot(data), "the slot is not the one that Redis Cluster computes")

    def _text(self, text: bytes) -> None:
        plain = cache_of_plain(text)
        try:
            key, token = parse(text)
        except KeyInvalid as refused:
            hold(0 <= refused.position <= len(text), f"position {refused.position} is outside the text")
            hold(f"at byte {refused.position}" in str(refused), "the message does not say where")
            hold(plain is None, "what is taken for a plain key is none")
            return
        canonical = key.canonical
        hold(parse(canonical) == (key, None), "the canonical text is another key")
        hold(len(canonical) <= MAX_KEY_BYTES, "the canonical text is too long for a key")
        hold(
            b"{" not in canonical and b"\r" not in canonical and b"\n" not in canonical,
            "it breaks out of its place",
        )
        hold(key.slot == _redis_slot(canonical), "the key's slot is not its canonical text's")
        if plain is not None:
            hold(
                (plain.decode(), canonical, token) == (key.cache, text, None), "a plain key is not canonical"
            )
        if token is not None:
            hold(0 < len(token) <= MAX_TOKEN_BYTES and token.isascii(), "a token of another form")

    def _within(self, text: bytes) -> None:
        """Whatever the text, a tenant reaches keys of its own alone, and none of a cache that is closed to it."""
        for tenant, reach in _REACHES.items():
            try:
                key, _ = reach.key(text)
            except (KeyInvalid, PermissionDenied):
                continue
            hold(key.tenant == tenant, f"{tenant} reaches a key of {key.tenant}")
            hold(key.cache != "closed", f"{tenant} reaches what is closed to it")
            own = reach.own(key.canonical)
            hold(own is not None and reach.key(own)[0] == key, "a key of one's own does not come back")
            hold(
                all(other.own(key.canonical) is None for name, other in _REACHES.items() if name != tenant),
                "somebody else's key is taken for one's own",
            )

    def _made(self, choices: Choices) -> None:
        args = tuple(
            choices.raw(choices.number(12)).decode("utf-8", "replace") for _ in range(choices.number(4))
        )
        key = Key(tenant=choices.pick(_TENANTS), cache=choices.pick(_CACHES), args=args)
        if len(key.canonical) <= MAX_KEY_BYTES:
            hold(parse(key.canonical) == (key, None), f"{key!r} is not read as it was written")


def _crc16(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


_CRC16: Final = [*map(_crc16, range(256))]


def _redis_slot(key: bytes) -> int:
    """As the specification of Redis Cluster says."""
    tag = key
    if (start := key.find(b"{")) >= 0 and (end := key[start + 1 :].find(b"}")) > 0:
        tag = key[start + 1 : start + 1 + end]
    crc = 0
    for byte in tag:
        crc = (crc << 8 & 0xFF00) ^ _CRC16[crc >> 8 ^ byte]
    return crc % SLOTS
