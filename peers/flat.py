"""Flat msgpack arrays: the one shape of everything that nodes exchange. Pure.

Nothing is nested: a field is None, a bool, a number, text or bytes. That bounds what decoding costs. Nested
arrays of a few kilobytes can ask a decoder for hundreds of megabytes; a flat one takes its own length and
less than 100 bytes a field, and has at most `MAX_FIELDS`.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgpack

from peers.errors import MessageInvalid

MAX_FIELDS: Final = 2**15
"""The same for every node and version, so that what one may write another can read."""

Field = None | bool | int | float | str | bytes
_TYPES: Final = frozenset({type(None), bool, int, float, str, bytes})


def pack(fields: Sequence[Field]) -> bytes:
    """The fields as bytes. Text that is not Unicode loses what is not."""
    packed: bytes = msgpack.packb(fields, unicode_errors="replace")
    return packed


def unpack(data: bytes) -> list[Field]:
    """The fields of one array that is all of ``data``. Raises `MessageInvalid`, whatever ``data`` is."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(1, len(data)), max_array_len=0, max_map_len=0, max_ext_len=0
    )
    try:
        unpacker.feed(data)
        count = unpacker.read_array_header()
        fields: list[Field] = list(islice(unpacker, min(count, MAX_FIELDS) + 1))
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageInvalid(f"not a flat array: {str(error) or type(error).__name__}") from error
    if len(fields) != count:
        raise MessageInvalid(f"an array of {count} fields that has another number, or over {MAX_FIELDS}")
    if not _TYPES.issuperset(map(type, fields)):
        raise MessageInvalid("an array with something nested in it")
    return fields
