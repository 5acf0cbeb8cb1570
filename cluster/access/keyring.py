"""The credentials of a keys file, and whether somebody holds one of them. Pure.

The file is TOML, a table or a line for each name::

    billing = { tenant = "acme", role = "read", hashes = ["sha256:…"] }

Two hashes may be valid at once, so that a key is replaced without a moment at which nobody can come in: add the
new one's, change the clients, remove the old one's. ``expires``, a time with its offset, ends all of a name's.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final

from cluster.access.identity import Identity, Role
from cluster.access.secret import digest, is_name, name_of, read_digest
from snapring.errors import ConfigInvalid

MAX_HASHES: Final = 2
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_NAMES: Final = 10_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY: Final = (bytes(32),) * MAX_HASHES
_FIELDS: Final = frozenset({"tenant", "role", "hashes", "expires"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the file says of one name. ``expires_s`` is in seconds of Unix time."""

    identity: Identity
    hashes: tuple[bytes, ...] = field(repr=False)
    expires_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That somebody has shown a key: whose, and which of its hashes it had."""

    identity: Identity
    digest: bytes = field(repr=False)


class Keyring:
    """Every credential there is, by name."""

    def __init__(self, credentials: Mapping[str, Credential]) -> None:
        self._credentials = dict(credentials)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self)} names>"

    def __len__(self) -> int:
        return len(self._credentials)

    def prove(self, key: bytes, now_s: float, name: str | None = None) -> Proof | None:
        """Whose ``key`` is at Unix time ``now_s``; None if it is nobody's, or not that of ``name``.

        The same work is done whatever is wrong, so the time that it takes tells no name from another.
        """
        claimed = name_of(key) or ""
        found = self._credentials.get(claimed)
        hashed = digest(key)
        known = (*found.hashes, *_NOBODY)[:MAX_HASHES] if found else _NOBODY
        fits = [compare_digest(hashed, each) for each in known]
        if found is None or not any(fits) or name not in (None, claimed) or _expired(found, now_s):
            return None
        return Proof(identity=found.identity, digest=hashed)

    def upholds(self, proof: Proof, now_s: float) -> bool:
        """Whether what was proved once still holds: the hash, the tenant, the role."""
        found = self._credentials.get(proof.identity.name)
        return (
            found is not None
            and found.identity == proof.identity
            and not _expired(found, now_s)
            and any(compare_digest(proof.digest, each) for each in found.hashes)
        )


def _expired(credential: Credential, now_s: float) -> bool:
    return credential.expires_s is not None and now_s >= credential.expires_s


def read_keyring(text: str) -> Keyring:
    """The keyring in the file's ``text``. Raises `ConfigInvalid` with every problem, which names no hash."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        # Its own message may quote the line, and with it a key that somebody put there by mistake.
        raise ConfigInvalid(["the keys file is not TOML"]) from None
    problems: list[str] = []
    credentials: dict[str, Credential] = {}
    if len(document) > MAX_NAMES:
        problems.append(f"more than {MAX_NAMES} names")
    for at, (name, table) in enumerate(document.items(), 1):
        try:
            credentials[name] = _credential(name, table)
        except ValueError as error:
            shown = name if is_name(name) else f"the {at}. name"
            problems.append(f"{shown}: {error}")
    if problems:
        raise ConfigInvalid(problems)
    return Keyring(credentials)


def _credential(name: str, table: object) -> Credential:
    if not is_name(name):
        raise ValueError("a name is a letter, then at most 62 letters, digits, _ or -")
    if not isinstance(table, dict) or not table.keys() <= _FIELDS:
        raise ValueError("expected tenant, role, hashes and perhaps expires")
    return Credential(
        identity=Identity(name=name, tenant=_tenant(table.get("tenant")), role=_role(table.get("role"))),
        hashes=_hashes(table.get("hashes")),
        expires_s=_expires(table.get("expires")),
    )


def _tenant(raw: object) -> str:
    if not isinstance(raw, str) or not is_name(raw):
        raise ValueError("tenant is a letter, then at most 62 letters, digits, _ or -")
    return raw


def _role(raw: object) -> Role:
    roles = {role.name.lower(): role for role in Role}
    if not isinstance(raw, str) or raw not in roles:
        raise ValueError(f"role is one of {', '.join(roles)}")
    return roles[raw]


def _hashes(raw: object) -> tuple[bytes, ...]:
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_HASHES:
        raise ValueError(f"hashes is a list of 1 to {MAX_HASHES}")
    found = []
    for each in raw:
        if not isinstance(each, str):
            raise ValueError("hashes is a list of texts")
        found.append(read_digest(each))
    return tuple(found)


def _expires(raw: object) -> float | None:
    if raw is None:
        return None
    if not isinstance(raw, datetime) or raw.tzinfo is None:
        raise ValueError("expires is a time with its offset, such as 2027-01-31T00:00:00Z, without quotes")
    return (raw - _EPOCH).total_seconds()
