"""The settings in force: defaults, file, environment and flags put together and judged at once.

`load` gives a `Settings`, whose ``config`` satisfies every bound and every rule, or raises
`ConfigInvalid` with a line for each problem there is. Secrets and passwords are in ``config`` only.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.config import CacheConfig, NodeConfig, TenantConfig
from cluster.settings import dsn, schema
from cluster.settings.rules import breaches
from cluster.settings.schema import NAMED, NODE, SECTIONS, TENANTS, Spec
from cluster.settings.sources import Layer, Origin, Source, from_environment, from_file, from_flags
from cluster.settings.units import NONE, SECRET_UNITS, Unit, read, show
from cluster.tokens import MIN_SECRET_BYTES
from snapring.errors import ConfigInvalid, KeyInvalid
from snapring.keys import parse

DEFAULT_FILE: Final = Path("snapring.toml")

_RANDOM_SECRET_BYTES: Final = 32
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_RANDOM_NOTE: Final = (
    "node.secrets: random at start, as none are configured: tokens do not survive a restart, and another"
    " node refuses them"
)
_SHARED: Final = (
    "must be set, the same on every node, where peers.discovery is: nodes with random secrets refuse one"
    " another's tokens. Make a secret with head -c 32 /dev/urandom | base64"
)
_STAND_IN: Final[dict[str, Any]] = {"name": "node", "url": "", "secrets": ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a configuration depends on besides its text: given by the program's entry, faked in tests."""

    environment: Mapping[str, str] = field(repr=False)
    host_name: str
    random_bytes: Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """One setting in force, ready to be shown: ``value`` as a TOML file would hold it, redacted."""

    name: str
    value: object
    origin: Origin
    redacted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A valid configuration, and where each of its settings came from."""

    config: NodeConfig
    in_force: tuple[InForce, ...]
    notes: tuple[str, ...]
    """What the user should know about them, a sentence each."""


def load(file: Path | None, flags: list[tuple[str, str]], surroundings: Surroundings) -> Settings:
    """The settings in ``file`` (none: `DEFAULT_FILE` where it exists), environment and ``flags``."""
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    written, flagged = from_file(file) if file else Layer(), from_flags(flags)
    environment = from_environment(surroundings.environment, {**written.named, **flagged.named})
    return _Draft([written, environment, flagged], surroundings).settle()


class _Draft:
    """Settings on their way to being valid: ``problems`` grows, and nothing is raised before the end.

    A setting that is missing or invalid is ``broken``: a stand-in keeps its place while the others are
    judged, and no rule about it is.
    """

    def __init__(self, layers: list[Layer], surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._given = {given.path: given for layer in layers for given in layer.given}
        self._named = {place: origin for layer in reversed(layers) for place, origin in layer.named.items()}
        self._problems = [problem for layer in layers for problem in layer.problems]
        self._broken: set[str] = set()
        self._in_force: list[InForce] = []
        self._notes: list[str] = []

    def settle(self) -> Settings:
        """The valid settings. Raises `ConfigInvalid`."""
        config = self._config()
        for breach in breaches(config):
            if self._broken.isdisjoint(breach.about):
                self._blame(breach.about, breach.message)
        if self._problems:
            raise ConfigInvalid(self._problems)
        return Settings(config=config, in_force=tuple(self._in_force), notes=tuple(self._notes))

    def _config(self) -> NodeConfig:
        values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        named: dict[str, Any] = {}
        for section in SECTIONS:
            if section in NAMED:
                names = sorted(name for owner, name in self._named if owner == section)
                named[section] = {name: self._one(section, name) for name in names}
                continue
            for spec in schema.specs():
                if spec.section == section:
                    values[spec.owner][spec.field] = self._value(spec, (section, spec.key))
        node = values.pop(NODE)
        node["secrets"] = self._secrets(
            node["secrets"], node["secret_files"], shared=bool(values["peers"]["discovery"])
        )
        sections = {name: SECTIONS[name](**values[name]) for name in values if name not in NAMED}
        return NodeConfig(**node, **sections, **named)

    def _one(self, section: str, name: str) -> CacheConfig | TenantConfig:
        if not _is_name(name):
            self._blame((f"{section}.{name}",), "a name is a letter, then letters, digits, _ or -")
        values: dict[str, Any] = {
            spec.field: self._value(spec, (section, name, spec.key))
            for spec in schema.specs()
            if spec.section == section
        }
        return TenantConfig(**values) if section == TENANTS else CacheConfig(name=name, **values)

    def _value(self, spec: Spec, path: tuple[str, ...]) -> object:
        given = self._given.get(path)
        origin = given.origin if given else Origin(Source.DEFAULT)
        try:
            value = self._default(spec, path) if given is None else _read(spec, given.raw)
        except ValueError as error:
            self._broken.add(schema.dotted(path))
            self._blame((schema.dotted(path),), str(error))
            return _STAND_IN.get(spec.field) if spec.required else spec.default
        self._in_force.append(_in_force(spec, schema.dotted(path), value, origin))
        return value

    def _default(self, spec: Spec, path: tuple[str, ...]) -> object:
        if not spec.required:
            return spec.default
        if spec.field == "name":
            return _node_name(self._surroundings.host_name)
        if spec.field == "secrets":
            return ()
        raise ValueError(
            f"is required: write {spec.key} in [{spec.section}] of the file (--config, else {DEFAULT_FILE}),"
            f" or set {schema.variable(path)} or {schema.flag(path)}"
        )

    def _secrets(
        self, secrets: tuple[str, ...], files: tuple[str, ...], *, shared: bool
    ) -> tuple[bytes, ...]:
        """Those configured, else a random one, which will not do where it must be ``shared`` with other nodes."""
        found = [(f"node.secrets[{at}]", secret.encode()) for at, secret in enumerate(secrets)]
        for file in files:
            try:
                found.append((file, Path(file).read_bytes().strip()))
            except (OSError, ValueError) as error:
                self._blame(("node.secret_files",), f"{file} cannot be read: {error}")
        for place, secret in found:
            if len(secret) < MIN_SECRET_BYTES:
                self._blame(
                    ("node.secret_files" if place in files else "node.secrets",),
                    f"{place} is shorter than {MIN_SECRET_BYTES} bytes: make a secret with"
                    " head -c 32 /dev/urandom | base64",
                )
        if found or files:
            return tuple(secret for _, secret in found)
        if shared:
            self._blame(("node.secrets", "peers.discovery"), _SHARED)
        self._notes.append(_RANDOM_NOTE)
        return (self._surroundings.random_bytes(_RANDOM_SECRET_BYTES),)

    def _blame(self, about: tuple[str, ...], message: str) -> None:
        origins = {schema.dotted(path): given.origin for path, given in self._given.items()}
        origins |= {schema.dotted(place): origin for place, origin in self._named.items()}
        written = [origins[name] for name in about if name in origins]
        place = f"{written[0]}: " if written else ""
        self._problems.append(f"{place}{about[0]}: {message}")


def _read(spec: Spec, raw: object) -> object:
    if spec.optional and raw == NONE:
        return None
    value = read(spec.setting, raw)
    if spec.setting.unit is Unit.URL:
        dsn.check(str(value))
    return _node_name(str(value)) if (spec.owner, spec.field) == (NODE, "name") else value


def _in_force(spec: Spec, name: str, value: object, origin: Origin) -> InForce:
    if spec.setting.unit is Unit.URL:
        shown: object = dsn.redact(str(value))
    elif spec.setting.unit is Unit.SECRETS and isinstance(value, tuple):
        shown = [dsn.HIDDEN] * len(value)
    else:
        shown = show(spec.setting, value)
    redacted = spec.setting.unit in SECRET_UNITS and dsn.HIDDEN in str(shown)
    return InForce(name=name, value=shown, origin=origin, redacted=redacted)


def _is_name(name: str) -> bool:
    try:
        key, token = parse(name.encode())
    except (KeyInvalid, UnicodeEncodeError):
        return False
    return token is None and str(key) == key.cache == name


def _node_name(name: str) -> str:
    if not _NODE_NAME.fullmatch(name):
        raise ValueError("expected at most 253 letters, digits, dots, _ or -, as in a host's name")
    return name
