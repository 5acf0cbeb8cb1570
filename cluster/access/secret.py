"""The text of an API key: made here, known here, and kept nowhere: the node keeps its hash. Pure.

``snapring_NAME_SECRET``: the prefix lets people and secret scanners see what it is, NAME whose it is, and SECRET
is 256 random bits. A guess is right once in 2**256, and no list of likely keys exists, so one round of SHA-256
hides it as well as any slow hash would, without costing the node a tenth of a second for each connection.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final

PREFIX: Final = "snapring_"
SECRET_BYTES: Final = 32
MAX_BYTES: Final = 256
"""No key is longer; what is longer is not hashed."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_KEY: Final = re.compile(rb"snapring_([A-Za-z][A-Za-z0-9_-]{0,62})_[A-Za-z0-9_-]{43}")
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")


def mint(name: str, random_bytes: Callable[[int], bytes]) -> str:
    """A new key for ``name``. Raises `ValueError` if that is no name."""
    if not is_name(name):
        raise ValueError("a name is a letter, then at most 62 letters, digits, _ or -")
    secret = urlsafe_b64encode(random_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    return f"{PREFIX}{name}_{secret}"


def is_name(text: str) -> bool:
    """Whether ``text`` can be the name of a credential, or of a tenant."""
    return _NAME.fullmatch(text) is not None


def name_of(key: bytes) -> str | None:
    """Whose ``key`` claims to be; None if it is no key at all."""
    found = _KEY.fullmatch(key) if len(key) <= MAX_BYTES else None
    return found[1].decode() if found else None


def digest(key: bytes) -> bytes:
    """What the node knows of a key."""
    return sha256(key).digest()


def show_digest(hashed: bytes) -> str:
    """A digest as the keys file holds it."""
    return f"sha256:{hashed.hex()}"


def read_digest(text: str) -> bytes:
    """The digest in ``text``. Raises `ValueError`, which does not repeat it: it may be a key by mistake."""
    found = _HASH.fullmatch(text)
    if found is None:
        raise ValueError("expected sha256: and 64 hexadecimal digits, as `snapring key new` prints them")
    return bytes.fromhex(found[1])
