"""Values as people and programs read them. Pure.

What is stored is anybody's bytes: nothing of it reaches a terminal but what is printable.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgpack
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.encoding import speakable
from snapring import Reply

_SHOWN_BYTES: Final = 4096
_SOURCES: Final = {
    "local": "from memory",
    "peer": "from its owner",
    "backup": "from its backup",
    "load": "loaded",
}


def for_programs(key: str, reply: Reply) -> dict[str, object]:
    """``reply`` as JSON. ``encoding`` tells of bytes whether they are their text or, else, base64."""
    value, encoding = _said(reply.value)
    return {
        "key": key,
        "value": value,
        "encoding": encoding,
        "as_of": reply.as_of,
        "age_ms": None if reply.age_s is None else round(reply.age_s * 1000),
        "state": reply.state,
        "source": reply.source,
        "version": reply.version,
    }


def for_people(key: str, reply: Reply) -> RenderableType:
    """The key, its value, and one line on what that is."""
    return Group(Text(printable(key), style="bold"), _shown(reply.value), Text(_about(reply), style="dim"))


def is_there(reply: Reply) -> bool:
    """Whether there is a row, or such a key."""
    return reply.value is not None and reply.value != []


def printable(text: str) -> str:
    """``text`` with everything that a terminal might obey written out."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def age(age_s: float | None) -> str:
    """How long ago, in words."""
    if age_s is None:
        return "of unknown age"
    return f"{age_s * 1000:.0f} ms old" if age_s < 1 else f"{age_s:.1f} s old"


def _about(reply: Reply) -> str:
    source = _SOURCES.get(reply.source or "", "")
    version = f"version {reply.version}" if reply.version else ""
    words = (reply.state, age(reply.age_s), source, version, f"as of {reply.as_of}")
    return printable(", ".join(word for word in words if word))


def _said(value: Any) -> tuple[object, str | None]:
    if not isinstance(value, bytes):
        return speakable(value), None if value is None else "rows"
    try:
        return value.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"


def _shown(value: Any) -> RenderableType:
    match value:
        case None | []:
            return Text("there is none", style="yellow")
        case bytes():
            return Text(printable(_text_of(value)))
        case dict():
            return _rows([value])
        case [dict(), *_]:
            return _rows(value)
    return Text(printable(_json(value)))


def _rows(rows: Sequence[Mapping[str, object]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        table.add_column(Text(printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, _cells(row.values())))
    return table


def _cells(fields: Iterable[object]) -> Iterable[str]:
    for field in fields:
        yield printable(field) if isinstance(field, str) else _json(field)


def _text_of(value: bytes) -> str:
    """Text as it is, JSON and msgpack laid out, anything else in hexadecimal."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _packed(value) or _hexadecimal(value)
    if text.startswith(("{", "[")):
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except ValueError:
            return text
    return text if _is_text(text) else _packed(value) or _hexadecimal(value)


def _is_text(text: str) -> bool:
    return all(char.isprintable() or char in "\n\r\t" for char in text)


def _packed(value: bytes) -> str | None:
    """A map or list in msgpack; nothing smaller, which any byte might be."""
    try:
        unpacked = msgpack.unpackb(value)
    except (ValueError, msgpack.UnpackException):
        return None
    return (
        json.dumps(speakable(unpacked), indent=2, ensure_ascii=False)
        if isinstance(unpacked, dict | list)
        else None
    )


def _hexadecimal(value: bytes) -> str:
    left = f" … {len(value)} bytes in all, --raw gives them" if len(value) > _SHOWN_BYTES else ""
    return value[:_SHOWN_BYTES].hex(" ") + left


def _json(value: object) -> str:
    return json.dumps(speakable(value), ensure_ascii=False)
