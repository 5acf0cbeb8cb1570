"""Rows of Postgres -> the bytes that doors send.

A value is a list of maps, column name to field; with ``single`` one map or nothing. Fields keep what
msgpack and JSON both can say: integers, floats, booleans, text, null, and arrays of these. bytea is binary
in msgpack and ``\\x…`` hex text in JSON; everything else (numeric, json, timestamps, uuid, ranges, …) is
Postgres' own text, exact and unambiguous under the pinned settings: a json number read as a float would
no longer be the number that Postgres returned.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Literal

import msgpack
from psycopg import adapters as default_adapters
from psycopg.abc import AdaptContext, Loader
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq.abc import PGresult
from psycopg.types import array, numeric, string
from psycopg.types import bool as booleans

Encode = Callable[[object], bytes]

_SCALARS: Final[dict[str, type[Loader]]] = {
    "int2": numeric.IntLoader,
    "int4": numeric.IntLoader,
    "int8": numeric.IntLoader,
    "oid": numeric.IntLoader,
    "float4": numeric.FloatLoader,
    "float8": numeric.FloatLoader,
    "bool": booleans.BoolLoader,
    "bytea": string.ByteaLoader,
}


@cache
def result_adapters() -> AdaptersMap:
    """How results are read: the types above natively, every other as its text."""
    adapters = AdaptersMap(default_adapters)
    for info in default_adapters.types:
        loader: type[Loader] = _SCALARS.get(info.name, string.TextLoader)
        adapters.register_loader(info.oid, loader)
        if info.array_oid:
            array.register_array(info, adapters)
    return adapters


class Rows:
    """Reads the rows of results that all have the same columns."""

    def __init__(self, context: AdaptContext) -> None:
        self._transformer = Transformer(context)
        self._known = False

    def __call__(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of ``result``, fields as `result_adapters` reads them."""
        self._transformer.set_pgresult(result, set_loaders=not self._known)
        self._known = True
        return self._transformer.load_rows(0, result.ntuples, tuple)


def encoder(encoding: Literal["msgpack", "json"]) -> Encode:
    """The function that writes a value (lists, dicts and fields) in ``encoding``."""
    return _msgpack if encoding == "msgpack" else _json


def rows_to_value(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    """The rows as maps; column names are unique."""
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _msgpack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _json(value: object) -> bytes:
    return json.dumps(speakable(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def speakable(value: object) -> object:
    """``value`` as JSON can say it."""
    if isinstance(value, dict):
        return {name: speakable(field) for name, field in value.items()}
    if isinstance(value, list):
        return [speakable(field) for field in value]
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value
