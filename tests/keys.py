"""API keys for tests: real ones, and the files that let them in."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.access.secret import digest, mint, show_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody with a key. Two with the same ``name`` hold the two keys of one credential."""

    name: str
    tenant: str
    role: str = "read"
    key: str = field(default="", repr=False)

    @property
    def hash(self) -> str:
        """What the file holds of the key."""
        return show_digest(digest(self.key.encode()))


def holder(name: str, tenant: str, role: str = "read") -> Holder:
    """Somebody with a new key."""
    return Holder(name=name, tenant=tenant, role=role, key=mint(name, secrets.token_bytes))


def keys_text(holders: Iterable[Holder], expires: str = "") -> str:
    """The file in which all of ``holders`` are."""
    lines: dict[str, tuple[Holder, list[str]]] = {}
    for each in holders:
        lines.setdefault(each.name, (each, []))[1].append(each.hash)
    ending = f", expires = {expires}" if expires else ""
    return "".join(
        f'{name} = {{ tenant = "{one.tenant}", role = "{one.role}", hashes = {hashes}{ending} }}\n'
        for name, (one, hashes) in lines.items()
    )


def write_keys(file: Path, holders: Iterable[Holder], expires: str = "") -> Path:
    """The same on disk, replaced at once as a deployment does it."""
    new = file.with_suffix(".new")
    new.write_text(keys_text(holders, expires))
    return new.replace(file)
