"""Where settings come from: a TOML file, the environment, flags. Each gives a `Layer`.

Nothing a user wrote makes these raise: a layer holds the settings it understood, each with its `Origin`,
and a sentence for everything it did not.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Final

from cluster.settings import schema
from cluster.settings.schema import ENVIRONMENT_PREFIX, NAMED, SECTIONS

CONFIG_VARIABLE: Final = "SNAPRING_CONFIG"
NODE_VARIABLE: Final = "SNAPRING_NODE"
API_KEY_VARIABLE: Final = "SNAPRING_API_KEY"
KEY_FILE_VARIABLE: Final = "SNAPRING_KEY_FILE"
CA_FILE_VARIABLE: Final = "SNAPRING_CA_FILE"

_NO_SETTINGS: Final = frozenset(
    {CONFIG_VARIABLE, NODE_VARIABLE, API_KEY_VARIABLE, KEY_FILE_VARIABLE, CA_FILE_VARIABLE}
)
"""What commands read in the environment themselves."""

_MAX_PARSED_CHARACTERS: Final = 5_000_000

_SERVICE_LINK: Final = re.compile(
    r"SNAPRING(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT: Final = re.compile(r"SNAPRING(_[A-Z0-9]+)*_PORT=(tcp|udp|sctp)://.*")


class Source(Enum):
    """The four places a setting can come from; a later one wins over an earlier one."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one setting came from: ``where`` is file:line, the variable or the flag."""

    source: Source
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.source.value

    def spelling(self, path: tuple[str, ...]) -> str:
        """How a setting is called where this one came from."""
        if self.source is Source.ENVIRONMENT:
            return schema.variable(path)
        return schema.flag(path) if self.source is Source.FLAG else schema.dotted(path)


@dataclass(frozen=True, slots=True)
class Given:
    """A setting as somebody wrote it."""

    path: tuple[str, ...]
    raw: object = field(repr=False)
    origin: Origin


@dataclass(slots=True, kw_only=True)
class Layer:
    """What one source says. ``named`` are the caches and tenants it names, by section and name, with where it first does."""

    given: list[Given] = field(default_factory=list)
    named: dict[tuple[str, str], Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def take(self, path: tuple[str, ...], raw: object, origin: Origin) -> None:
        """Take a setting, or note that there is none of that name."""
        if schema.is_setting(path):
            self.given.append(Given(path, raw, origin))
            if path[0] in NAMED:
                self.named.setdefault((path[0], path[1]), origin)
            return
        meant = schema.closest(path)
        hint = f"; did you mean {origin.spelling(meant)}?" if meant else ""
        self.problems.append(f"{origin}: there is no setting {schema.dotted(path)}{hint}")


def from_file(file: Path) -> Layer:
    """The settings in the TOML file ``file``."""
    try:
        return from_text(file.read_bytes().decode(), str(file))
    except OSError as error:
        return Layer(problems=[f"{file}: cannot be read: {error.strerror}"])
    except UnicodeDecodeError as error:
        return Layer(problems=[f"{file}: is not UTF-8 text: byte {error.start}"])


def from_text(text: str, name: str) -> Layer:
    """The settings in the TOML document ``text``, called ``name`` in messages."""
    try:
        document = tomllib.loads(text)
        lines = dict(_lines(text))
    except RecursionError:
        return Layer(problems=[f"{name}: is nested too deeply"])
    except ValueError as error:
        return Layer(problems=[f"{name}: is not TOML: {error}"])

    def origin(path: tuple[str, ...]) -> Origin:
        return Origin(Source.FILE, f"{name}:{lines[path]}" if path in lines else name)

    layer = Layer()
    for section, table in document.items():
        if section in NAMED and isinstance(table, dict):
            for name_of, settings in table.items():
                layer.named[section, name_of] = origin((section, name_of))
                _take_table(layer, (section, name_of), settings, origin)
        else:
            _take_table(layer, (section,), table, origin)
    return layer


def from_flags(flags: Iterable[tuple[str, str]]) -> Layer:
    """The settings in ``--section.key=value`` flags, given as pairs of dotted name and text."""
    layer = Layer()
    for name, text in flags:
        layer.take(tuple(name.split(".")), text, Origin(Source.FLAG, f"--{name}"))
    return layer


def from_environment(environment: Mapping[str, str], named: Iterable[tuple[str, str]]) -> Layer:
    """The settings in ``SNAPRING_SECTION__KEY`` variables.

    ``named`` are the sections and names the other sources use. ``CACHES__USER_BY_ID__…`` is the one of them that is
    spelt so in upper case with underscores; where there is none, it names the cache ``user_by_id``.
    """
    layer = Layer()
    known = sorted(named)
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or _is_foreign(variable, text):
            continue
        path = _path_of(variable)
        fitting = [place for place in known if schema.variable((*place, path[-1])) == variable]
        if variable != variable.upper():
            layer.problems.append(f"{variable}: write it in upper case: {variable.upper()}")
        elif len(fitting) > 1:
            meant = ", ".join(name for _, name in fitting)
            layer.problems.append(f"{variable}: can mean the {path[0]} {meant}: use the file or a flag")
        else:
            path = (*fitting[0], path[-1]) if fitting else path
            layer.take(path, text, Origin(Source.ENVIRONMENT, variable))
    return layer


def _path_of(variable: str) -> tuple[str, ...]:
    section, *rest = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    if section in NAMED and len(rest) > 1:
        return section, "__".join(rest[:-1]), rest[-1]
    return section, *rest


def _is_foreign(variable: str, text: str) -> bool:
    # Kubernetes sets such variables for every Service, so one called "snapring" must not stop the node.
    link = _SERVICE_LINK.fullmatch(variable) or _SERVICE_PORT.fullmatch(f"{variable}={text}")
    return variable in _NO_SETTINGS or link is not None


def _take_table(
    layer: Layer, path: tuple[str, ...], table: object, origin: Callable[[tuple[str, ...]], Origin]
) -> None:
    name = schema.dotted(path)
    if isinstance(table, dict) and path[0] in SECTIONS:
        for key, raw in table.items():
            layer.take((*path, key), raw, origin((*path, key)))
    elif isinstance(table, dict):
        close = get_close_matches(name, SECTIONS, n=1)
        hint = f"did you mean [{close[0]}]?" if close else f"there are {', '.join(SECTIONS)}"
        layer.problems.append(f"{origin(path)}: there is no section [{name}]; {hint}")
    elif path[0] in SECTIONS:
        layer.problems.append(f"{origin(path)}: {name} is a section: write [{name}] and its settings below")
    else:
        layer.take(path, table, origin(path))


def _lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each path of a valid document with the line on which its statement begins.

    A statement ends at the first line end at which it is valid TOML by itself. That is quadratic in the
    lines of one statement, so it is bounded: where it stops, later paths have no line.
    """
    header: tuple[str, ...] = ()
    statement, start, parsed = "", 1, 0
    for number, line in enumerate(text.split("\n"), 1):
        statement += f"{line}\n"
        parsed += len(statement)
        if parsed > _MAX_PARSED_CHARACTERS:
            return
        try:
            found = list(_paths(tomllib.loads(statement)))
        except ValueError:
            continue
        if statement.lstrip().startswith("["):
            header = max(found, key=len)
            yield header, start
        else:
            yield from ((header + path, start) for path in found)
        statement, start = "", number + 1


def _paths(value: object) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (key,)
            yield from ((key, *path) for path in _paths(inner))
