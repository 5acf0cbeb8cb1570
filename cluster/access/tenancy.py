"""What part of the keys a credential reaches: its tenant's, whatever the text of a key says. Pure.

A tenant is named in a key before the first ``/``, and a ``/`` stands nowhere else in one: in an argument it is
written ``%2F``. So a text without ``/`` is the credential's own, one that names its tenant is the same, and any other
is refused, before the text is parsed and whether or not it is a key at all.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from snapring.errors import PermissionDenied
from snapring.keys import DEFAULT_TENANT, Key, parse

T = TypeVar("T")

_OPEN: Final = b"{"
_CLOSE: Final = b"}@"


class Reach:
    """The keys of ``tenant``, but for those of the caches in ``closed``."""

    __slots__ = ("_closed", "_named", "_prefix", "tenant")

    def __init__(self, tenant: str, closed: Iterable[str] = ()) -> None:
        self.tenant = tenant
        self._closed = frozenset(name.encode() for name in closed)
        self._named = f"{tenant}/".encode()
        self._prefix = b"" if tenant == DEFAULT_TENANT else self._named

    def __repr__(self) -> str:
        return f"<Reach of {self.tenant}>"

    def text(self, text: bytes) -> bytes:
        """``text``, a key with or without a token, as a key of the tenant. Raises `PermissionDenied`.

        What is no key stays none: to say where it breaks is the parser's work.
        """
        if not text.startswith(_OPEN):
            return self._within(text)
        end = text.find(_CLOSE)
        if end < 0:
            end = len(text)
        return _OPEN + self._within(text[1:end]) + text[end:]

    def said(self, text: bytes) -> tuple[bytes, ...]:
        """The two texts of which `text` makes ``text``: with the tenant's name, and without."""
        opened = text.startswith(_OPEN)
        bare = text[opened:].removeprefix(self._named)
        return (_OPEN + bare, _OPEN + self._named + bare) if opened else (bare, self._named + bare)

    def prefix(self, text: bytes) -> bytes:
        """The beginning of a key, as one of the tenant's keys. Raises `PermissionDenied`."""
        return self._prefix + self._bare(text)

    def own(self, key: bytes) -> bytes | None:
        """Canonical ``key`` without the tenant's name; None if it is another tenant's, or closed to this one."""
        if not key.startswith(self._prefix):
            return None
        bare = key[len(self._prefix) :]
        return None if b"/" in bare or bare.partition(b":")[0] in self._closed else bare

    def key(self, text: bytes) -> tuple[Key, str | None]:
        """The key in ``text``, and its token if one is attached. Raises `KeyInvalid`, `PermissionDenied`."""
        return parse(self.text(text))

    def finder(self, find: Callable[[bytes], T | None]) -> Callable[[bytes], T | None]:
        """``find``, which knows canonical keys, for texts that this tenant may mean by them.

        For the hit path: what it does not find it may be right to look up in another way.
        """
        prefix, closed = self._prefix, self._closed
        if closed:
            reach = Reach(self.tenant).finder(find)
            return lambda text: None if text.partition(b":")[0] in closed else reach(text)
        if prefix:  # a text that names a tenant has two slashes then, which no canonical key has
            return lambda text: find(prefix + text)
        return lambda text: None if b"/" in text else find(text)

    def _within(self, key: bytes) -> bytes:
        key = self._bare(key)
        if self._closed and key.partition(b":")[0] in self._closed:
            raise PermissionDenied(
                "the cache is not open to the credential's tenant: see its setting tenants"
            )
        return self._prefix + key

    def _bare(self, text: bytes) -> bytes:
        bare = text.removeprefix(self._named)
        if b"/" in bare:  # also behind one's own tenant: what is left would name another
            raise PermissionDenied("the credential is another tenant's: leave the tenant out of the key")
        return bare


def closed_to(tenant: str, readers: Mapping[str, tuple[str, ...] | None]) -> list[str]:
    """The caches that ``tenant`` may not read, of those whose ``readers`` are named."""
    return [cache for cache, tenants in readers.items() if tenants is not None and tenant not in tenants]
