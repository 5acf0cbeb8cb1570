"""How a failure travels from the node that raises it to the one that asked. Pure.

As its code, and a flat array of its message, whether it is retryable, and what else it knows. A code of
this version of Snapring becomes its class again; one that this version does not know becomes a plain
`SnapringError` with that code. A `PeerError` is about one hop, so none but `MessageTooLarge` is ever
rebuilt: what a peer answers cannot pass for the loss of that peer.
"""

from collections.abc import Mapping
from typing import Final

from peers.errors import MessageTooLarge
from peers.flat import Field, pack, unpack
from snapring import errors
from snapring.errors import ConfigInvalid, KeyInvalid, Overloaded, SnapringError, VersionMismatch

_MAX_CODE_CHARACTERS: Final = 64
_MAX_TEXT_CHARACTERS: Final = 1024
MAX_FAILURE_BYTES: Final = 4 * (_MAX_CODE_CHARACTERS + 2 * _MAX_TEXT_CHARACTERS) + 64
"""No failure takes more, code included."""

ATTRIBUTES: Final[Mapping[type[SnapringError], Mapping[str, object]]] = {
    ConfigInvalid: {"problems": []},
    KeyInvalid: {"position": 0},
    Overloaded: {"retry_after_s": 0.0},
    VersionMismatch: {"key": "", "version": 0},
}
"""What the errors with a constructor of their own know besides the message, in the order in which it travels,
with the values that stand for what an older peer did not send."""

_CLASSES: Final[Mapping[str, type[SnapringError]]] = {
    known.code: known
    for known in (*vars(errors).values(), MessageTooLarge)
    if isinstance(known, type) and issubclass(known, SnapringError)
}


def pack_failure(error: SnapringError) -> tuple[str, bytes]:
    """Its code, and the rest of it."""
    attributes = (_sent(getattr(error, name)) for name in ATTRIBUTES.get(type(error), ()))
    rest = (str(error)[:_MAX_TEXT_CHARACTERS], error.retryable, *attributes)
    return error.code[:_MAX_CODE_CHARACTERS], pack(rest)


def unpack_failure(code: str, rest: bytes) -> SnapringError:
    """The error that `pack_failure` was given. Raises `MessageInvalid`."""
    received = unpack(rest)
    known = _CLASSES.get(code)
    # Not by its constructor, which would complete a message that is complete.
    error = SnapringError.__new__(known or SnapringError, _received(received, 0, ""))
    if known is None:
        vars(error).update(code=code, retryable=_received(received, 1, False))
        return error
    for place, (name, default) in enumerate(ATTRIBUTES.get(known, {}).items(), start=2):
        setattr(error, name, _received(received, place, default))
    return error


def _sent(value: object) -> Field:
    text = "\n".join(value) if isinstance(value, list) else value
    assert isinstance(text, str | int | float), "the attributes of errors are listed in ATTRIBUTES"
    return text[:_MAX_TEXT_CHARACTERS] if isinstance(text, str) else text


def _received(fields: list[Field], place: int, default: object) -> object:
    """The field at ``place``; ``default`` if there is none, or one of another type."""
    value = fields[place] if place < len(fields) else default
    if isinstance(default, list):
        return value.split("\n") if isinstance(value, str) else default.copy()
    return value if type(value) is type(default) else default
