"""How people write settings: sizes, durations, numbers, lists; read strictly and shown again. Pure.

`read` takes what a TOML file holds (typed) or what the environment and flags hold (text) and gives the
field's value, or raises `ValueError` with a sentence that says what was expected. `show` gives what a TOML
file would hold; reading what was shown gives the same value. Texts that may be secret are never part
of a message.
"""

import re
import tomllib
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import Enum
from math import inf
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0

NONE: Final = "none"
"""What people write to turn an optional setting off."""

_MAX_NUMBER_CHARACTERS: Final = 40
_EXACT: Final = Context(prec=3 * _MAX_NUMBER_CHARACTERS)
"""In which whatever so few characters say is no rounded number."""

_HUGE: Final = 10**_MAX_NUMBER_CHARACTERS
_BYTES: Final = {
    "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SECONDS: Final = {
    "us": Decimal("0.000001"), "ms": Decimal("0.001"), "s": Decimal(1),
    "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400),
}  # fmt: skip
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_SIZE: Final = re.compile(rf"({_NUMBER}) ?({'|'.join(_BYTES)})?")
_PART: Final = re.compile(rf"({_NUMBER}) ?({'|'.join(sorted(_SECONDS, reverse=True))})")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*")
_FRACTION: Final = re.compile(rf"[+-]?{_NUMBER}(?:[eE][+-]?[0-9]{{1,3}})?")


class Unit(Enum):
    """How a setting is written by people; the value says it in an error message."""

    TEXT = "a text"
    URL = "a PostgreSQL URL such as postgresql://user@host/database"
    CHOICE = "one of the known words"
    TEXTS = 'a list of texts such as ["a", "b"]'
    SECRETS = 'a list of secrets such as ["…", "…"]'
    FLAG = "true or false"
    COUNT = "a whole number"
    FRACTION = "a number"
    BYTES = 'a size such as "256MiB" or "64KiB"'
    DURATION = 'a duration with its unit such as "25ms", "5s" or "1h30m"'


SECRET_UNITS: Final = frozenset({Unit.URL, Unit.SECRETS})
"""Units whose values are never shown as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What there is to know about one field.

    ``least`` and ``most`` are inclusive bounds, ``below`` an exclusive one, in the field's own unit; for
    lists they bound the length. ``key`` is the name users write where it is not the field's without its
    unit suffix; a dot in it moves the setting to that section. ``absent`` says what holds where the
    setting is left out and its default does not say so itself.
    """

    doc: str
    unit: Unit
    least: float = 0
    most: float = inf
    below: float = inf
    choices: tuple[str, ...] = ()
    key: str | None = None
    absent: str = ""


def setting(
    unit: Unit,
    doc: str,
    *,
    least: float = 0,
    most: float = inf,
    below: float = inf,
    choices: tuple[str, ...] = (),
    key: str | None = None,
    absent: str = "",
) -> dict[str, Setting]:
    """The metadata of a field."""
    return {
        "setting": Setting(
            doc=doc,
            unit=unit,
            least=least,
            most=most,
            below=below,
            choices=choices,
            key=key,
            absent=absent,
        )
    }


def read(setting: Setting, raw: object) -> object:
    """The value that ``raw`` stands for. Raises `ValueError` saying what was expected instead."""
    try:
        value = _typed(setting, raw)
    except OverflowError as error:
        raise _expected(setting, raw) from error
    size = len(value) if isinstance(value, tuple) else value
    if isinstance(size, int | float) and not isinstance(size, bool):
        _check_bounds(setting, size)
    return value


def show(setting: Setting, value: object) -> object:
    """What a TOML file would hold for ``value``: text, number, boolean or list of texts."""
    if value is None:
        return NONE
    if setting.unit is Unit.BYTES and isinstance(value, int):
        return format_bytes(value)
    if setting.unit is Unit.DURATION and isinstance(value, int | float):
        return format_duration(value)
    return list(value) if isinstance(value, tuple) else value


def range_of(setting: Setting) -> str:
    """The bounds of a number, size or duration in words; empty where there are none worth saying."""
    least = _bound(setting, setting.least) if setting.least else ""
    if setting.below < inf:
        return f"{least or 0} to below {_bound(setting, setting.below)}"
    if setting.most < inf:
        return f"{least or 0} to {_bound(setting, setting.most)}"
    return ""


def parse_bytes(text: str) -> int:
    """Bytes in ``text``: "256MiB", "1.5GB", "4096". Raises `ValueError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > _MAX_NUMBER_CHARACTERS:
        raise ValueError(f"not a size: {text!r}")
    size = Decimal(match[1]) * _BYTES[match[2] or "B"]
    if size != int(size):
        raise ValueError(f"not a whole number of bytes: {text!r}")
    return int(size)


def format_bytes(size: int) -> str:
    """``size`` in the largest binary unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def parse_duration(text: str) -> float:
    """Seconds in ``text``: "25ms", "0.5s", "1h30m". Raises `ValueError`; a unit is never guessed."""
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip() or len(text) > _MAX_NUMBER_CHARACTERS:
        raise ValueError(f"not a duration: {text!r}")
    seconds = Decimal(0)
    for number, unit in parts:
        seconds = _EXACT.fma(Decimal(number), _SECONDS[unit], seconds)
    if _EXACT.remainder(seconds, _SECONDS["us"]):
        raise ValueError(f"not a duration in whole microseconds: {text!r}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """``seconds`` in the largest unit in which it is a whole number."""
    exact = Decimal(repr(seconds))
    for unit, factor in reversed(_SECONDS.items()):
        if exact and exact % factor == 0:
            return f"{int(exact / factor)}{unit}"
    return f"{exact:f}s"


def _typed(setting: Setting, raw: object) -> object:
    match setting.unit:
        case Unit.FLAG:
            return _flag(setting, raw)
        case Unit.COUNT | Unit.FRACTION:
            return _number(setting, raw)
        case Unit.BYTES | Unit.DURATION:
            return _measure(setting, raw)
        case Unit.TEXTS | Unit.SECRETS:
            return _texts(setting, raw)
        case _:
            return _text(setting, raw)


def _text(setting: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        raise _expected(setting, raw)
    if setting.choices and raw not in setting.choices:
        raise ValueError(f"expected one of {', '.join(setting.choices)}, got {_brief(raw)}")
    return _clean(raw)


def _flag(setting: Setting, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if raw in ("true", "false"):
        return raw == "true"
    raise _expected(setting, raw)


def _number(setting: Setting, raw: object) -> int | float:
    whole = setting.unit is Unit.COUNT
    if isinstance(raw, str) and len(raw) <= _MAX_NUMBER_CHARACTERS:
        if _INTEGER.fullmatch(raw):
            return int(raw)
        if not whole and _FRACTION.fullmatch(raw):
            return float(raw)
    if isinstance(raw, bool) or not isinstance(raw, int if whole else (int, float)):
        raise _expected(setting, raw)
    assert isinstance(raw, int | float)
    return raw if whole else float(raw)


def _measure(setting: Setting, raw: object) -> int | float:
    in_bytes = setting.unit is Unit.BYTES
    if in_bytes and isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if not isinstance(raw, str):
        raise _expected(setting, raw)
    try:
        return parse_bytes(raw) if in_bytes else parse_duration(raw)
    except ValueError as error:
        raise _expected(setting, raw) from error


def _texts(setting: Setting, raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = _split(setting, raw)
    if not isinstance(raw, list):
        raise _expected(setting, raw)
    for item in raw:
        if not isinstance(item, str):
            raise _expected(setting, item)
    return tuple(map(_clean, raw))


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains bytes that are not UTF-8") from None
    if "\0" in text:
        raise ValueError("contains a NUL character")
    return text


def _split(setting: Setting, text: str) -> object:
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")] if text.strip() else []
    try:
        return tomllib.loads(f"list = {text}")["list"]
    except (ValueError, RecursionError) as error:
        raise _expected(setting, text) from error


def _check_bounds(setting: Setting, value: float) -> None:
    if setting.least <= value <= setting.most and value < setting.below:
        return
    if value < setting.least:
        raise ValueError(f"must be at least {_bound(setting, setting.least)}")
    if value >= setting.below:
        raise ValueError(f"must be below {_bound(setting, setting.below)}")
    raise ValueError(f"must be at most {_bound(setting, setting.most)}")


def _bound(setting: Setting, bound: float) -> str:
    if setting.unit is Unit.BYTES:
        return format_bytes(int(bound))
    if setting.unit is Unit.DURATION:
        return format_duration(bound)
    items = " item(s)" if setting.unit in (Unit.TEXTS, Unit.SECRETS) else ""
    return f"{bound:_.0f}{items}"


def _expected(setting: Setting, raw: object) -> ValueError:
    got = "" if setting.unit in SECRET_UNITS else f", got {_brief(raw)}"
    return ValueError(f"expected {setting.unit.value}{got}")


def _brief(raw: object) -> str:
    if isinstance(raw, dict):
        return "a table"
    if isinstance(raw, list):
        return "a list"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, int) and abs(raw) > _HUGE:
        return "a huge number"
    shown = raw if isinstance(raw, str) else str(raw)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}…"
    return f'"{shown}"' if isinstance(raw, str) else shown
