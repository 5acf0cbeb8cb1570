"""What a client writes to ``store`` caches, as the words of a command. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snapring.asked import Word, text_of
from snapring.errors import CallInvalid
from snapring.keys import Key


@dataclass(frozen=True, slots=True)
class Put:
    """Put ``value``, bytes or text (UTF-8), under ``key``.

    ``if_version``: only if the key is at this version, 0 for none.
    """

    key: str | Key
    value: bytes | str
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete ``key``. ``if_version``: only if it is at this version."""

    key: str | Key
    if_version: int | None = None


Change = Put | Delete


def change_words(changes: Sequence[Change]) -> Iterator[Word]:
    """The words of SNAP.WRITE. Raises `CallInvalid` for what is no value."""
    yield b"SNAP.WRITE"
    for change in changes:
        if isinstance(change, Put):
            if not isinstance(change.value, bytes | str):
                raise CallInvalid(
                    f"values are bytes or text, not {type(change.value).__name__}: encode it first"
                )
            yield from (b"PUT", text_of(change.key), change.value)
        elif isinstance(change, Delete):
            yield from (b"DEL", text_of(change.key))
        else:
            raise CallInvalid(f"a write is a list of Put and Delete, not of {type(change).__name__}")
        if change.if_version is not None:
            yield from (b"IFVERSION", str(change.if_version))
