"""Every setting there is, by the name users write. Pure; read off the dataclasses of `cluster.config`.

One naming rule: a setting is ``section.key`` in the file (``[section]``, ``key = …``), ``--section.key``
as a flag and ``SNAPRING_SECTION__KEY`` in the environment: dots become ``__``, the rest upper case, ``-``
an underscore. Settings of a cache are ``caches.NAME.key``, those of a tenant ``tenants.NAME.key``.
"""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from functools import cache
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

from cluster.config import (
    AccessConfig,
    BreakerConfig,
    CacheConfig,
    FeedConfig,
    GrpcConfig,
    HttpConfig,
    LoadConfig,
    LogConfig,
    NodeConfig,
    PeersConfig,
    PostgresConfig,
    RespConfig,
    RetentionConfig,
    TenantConfig,
    TlsConfig,
    TracesConfig,
    WatchConfig,
    WriteConfig,
)
from cluster.settings.units import Setting

CACHES: Final = "caches"
TENANTS: Final = "tenants"
NAMED: Final = (CACHES, TENANTS)
"""The sections of which there is one for each name: ``[caches.user_by_id]``."""
NODE: Final = "node"
ENVIRONMENT_PREFIX: Final = "SNAPRING_"

SECTIONS: Final[dict[str, type]] = {
    "postgres": PostgresConfig,
    NODE: NodeConfig,
    CACHES: CacheConfig,
    "feed": FeedConfig,
    "load": LoadConfig,
    "write": WriteConfig,
    "retention": RetentionConfig,
    "breaker": BreakerConfig,
    "resp": RespConfig,
    "grpc": GrpcConfig,
    "http": HttpConfig,
    "log": LogConfig,
    "traces": TracesConfig,
    "watch": WatchConfig,
    "peers": PeersConfig,
    "access": AccessConfig,
    "tls": TlsConfig,
    "quotas": TenantConfig,
    TENANTS: TenantConfig,
}
"""The sections of the file, in the order in which they are shown, and the value each one fills."""

_SUFFIXES: Final = ("_bytes", "_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One setting: where users write it, and the field of ``owner`` that it fills."""

    section: str
    key: str
    owner: str
    field: str
    setting: Setting
    default: object
    optional: bool
    """Whether users may turn it off, with "none"."""

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING


@cache
def specs() -> tuple[Spec, ...]:
    """Every setting, in the order of `SECTIONS`."""
    found = [spec for owner, kind in SECTIONS.items() for spec in _specs_of(owner, kind)]
    order = list(SECTIONS)
    return tuple(sorted(found, key=lambda spec: order.index(spec.section)))


@cache
def specs_by_name() -> dict[tuple[str, str], Spec]:
    """Every setting by section and key."""
    return {(spec.section, spec.key): spec for spec in specs()}


def dotted(path: tuple[str, ...]) -> str:
    """The name of a setting in messages."""
    return ".".join(path)


def variable(path: tuple[str, ...]) -> str:
    """The name of a setting in the environment."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper().replace("-", "_")


def flag(path: tuple[str, ...]) -> str:
    """The name of a setting on the command line."""
    return f"--{dotted(path)}"


def is_setting(path: tuple[str, ...]) -> bool:
    """Whether ``path`` names a setting."""
    length = 3 if path[0] in NAMED else 2
    return len(path) == length and (path[0], path[-1]) in specs_by_name()


def closest(unknown: tuple[str, ...]) -> tuple[str, ...] | None:
    """The setting that was probably meant by a name that is none: the same key elsewhere, or alike."""
    name = unknown[1] if unknown[0] in NAMED and len(unknown) > 2 else "NAME"
    known = {dotted(path): path for path in _paths(name)}
    same_key = [name for name, path in known.items() if path[-1] == unknown[-1]]
    close = get_close_matches(dotted(unknown), same_key, n=1, cutoff=0.0)
    close = close or get_close_matches(dotted(unknown), known, n=1, cutoff=0.75)
    return known[close[0]] if close else None


def _paths(name: str) -> Iterator[tuple[str, ...]]:
    for spec in specs():
        middle = (name,) if spec.section in NAMED else ()
        yield (spec.section, *middle, spec.key)


def _specs_of(owner: str, kind: type) -> Iterator[Spec]:
    hints = get_type_hints(kind)
    for each in fields(kind):
        described = each.metadata.get("setting")
        if isinstance(described, Setting):
            section, key = _place(owner, each, described)
            yield Spec(
                section=section,
                key=key,
                owner=owner,
                field=each.name,
                setting=described,
                default=each.default,
                optional=NoneType in get_args(hints[each.name]),
            )


def _place(owner: str, each: Field[Any], described: Setting) -> tuple[str, str]:
    if described.key is not None:
        section, _, key = described.key.rpartition(".")
        return section or owner, key
    name = each.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return owner, name
