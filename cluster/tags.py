"""Tags: what a change names and an entry depends on. Pure.

A **key tag** stands for the rows of a table in which one column has one value: the signed 64 bits that
``snapring.tag`` computes in the database, for triggers and loads alike, from a text of the value. This
module owns the one list of types for which that is sound, equality of values being equality of texts,
and the expression of that text, which must not depend on any session's settings.

**Table tags** and **bulk tags** are numbers above all 64-bit ones, so that they never meet a key tag.
"""

from collections.abc import Mapping
from typing import Final

_ABOVE_KEYS: Final = 2**64
_TEXT: Final = "({})::pg_catalog.text"
_HEX: Final = "pg_catalog.encode({}, 'hex')"

EXPRESSIONS: Final[Mapping[int, str]] = {
    16: _TEXT,  # bool
    17: _HEX,  # bytea, whose own text depends on bytea_output
    19: _TEXT,  # name
    20: _TEXT,  # int8
    21: _TEXT,  # int2
    23: _TEXT,  # int4
    25: _TEXT,  # text
    26: _TEXT,  # oid
    1043: _TEXT,  # varchar
    1082: _HEX.format("pg_catalog.date_send({})"),  # date, whose own text depends on DateStyle
    2950: _TEXT,  # uuid
}
"""The expression of a value's text, by type oid; ``{}`` stands for the value. Not here: numeric, float,
bpchar, citext (values that are equal in different texts), enums (a
label can be renamed under a transaction that has already written the old text), timestamps and times (a change of settings
must not matter, and nobody looks rows up by them), arrays, json and everything unknown."""


def key_grain(type_oid: int, typtype: str, *, deterministic: bool) -> bool:
    """Whether rows can be told apart by the text of a column of this type and collation.

    ``typtype`` is ``pg_type.typtype``; a domain counts as its base type, which the caller looks up.
    ``deterministic`` is ``pg_collation.collisdeterministic``, True where the type has no collation.
    """
    return deterministic and typtype == "b" and type_oid in EXPRESSIONS


def canonical_text(expression: str, type_oid: int) -> str:
    """The SQL of the text of ``expression``, a value of type ``type_oid``, one of `EXPRESSIONS`."""
    return EXPRESSIONS[type_oid].format(expression)


def tag_expression(rel: int, attnum: int, expression: str, type_oid: int) -> str:
    """The SQL of the key tag of the rows of ``rel`` whose column ``attnum`` equals ``expression``.

    Null where ``expression`` is null: no row equals that.
    """
    return f"snapring.tag({rel}::pg_catalog.oid, {attnum}, {canonical_text(expression, type_oid)})"


def table_tag(rel: int) -> int:
    """The tag of every change of table ``rel``."""
    return 2 * rel + _ABOVE_KEYS


def bulk_tag(rel: int) -> int:
    """The tag of the changes of table ``rel`` that name no rows."""
    return 2 * rel + 1 + _ABOVE_KEYS
