"""A memoised result as a value of a ``store`` cache, and the key that it is kept under. Pure.

The key is ``cache:memo:FUNCTION:DIGEST``, with a 128-bit digest of the arguments; the arguments themselves stand in
the value and are compared, so that a digest alone identifies nothing. The value is msgpack:
``[format, arguments, [[key, fingerprint], …], result]``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgpack

from snapring.capture import Fingerprint, Seen
from snapring.errors import CallInvalid
from snapring.keys import Key, parse

MAX_ARGUMENT_BYTES: Final = 16 * 1024
"""Most bytes that the arguments of one call may have, encoded."""

MAX_DEPTH: Final = 16
"""How deep lists, tuples and dicts of arguments may nest."""

_FORMAT: Final = 1
_TUPLE: Final = 1
_DICT: Final = 2


@dataclass(frozen=True, slots=True)
class Memo:
    """A result, and what it was computed from: it is true wherever all of ``dependencies`` are the same."""

    arguments: bytes
    dependencies: Mapping[str, Fingerprint]
    result: bytes

    def holds(self, found: Mapping[str, Seen], tags: Iterable[str] = ()) -> bool:
        """Whether the result is true where ``found``, all of the dependencies among them, was read.

        ``tags`` must be among the dependencies: they may be declared anew.
        """
        return all(tag in self.dependencies for tag in tags) and all(
            found[key].fingerprint == was for key, was in self.dependencies.items()
        )

    @property
    def encoded(self) -> bytes:
        """The value to keep."""
        fields = (_FORMAT, self.arguments, [list(pair) for pair in self.dependencies.items()], self.result)
        return bytes(msgpack.packb(fields))


def memo(raw: bytes | None, arguments: bytes) -> Memo | None:
    """The memo in ``raw``; None where there is none, of another format, or of other arguments."""
    try:
        form, given, dependencies, result = msgpack.unpackb(raw or b"\xc0")
        if form != _FORMAT or given != arguments or not isinstance(result, bytes):
            return None
        return Memo(arguments, dict(dependencies), result)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException):
        return None


def result_bytes(result: object, function: str) -> bytes:
    """``result`` as it is kept. Raises `CallInvalid` where it would not come back as it is."""
    try:
        return bytes(msgpack.packb(result, strict_types=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise CallInvalid(
            f"the result of {function} cannot be kept ({error}): return None, booleans, integers of 64 bits, floats,"
            " text, bytes, lists and dicts of these (a tuple would come back as a list)"
        ) from error


def result(raw: bytes) -> Any:
    """The result in ``raw``."""
    return msgpack.unpackb(raw, strict_map_key=False)


def argument_bytes(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """The arguments of a call, the same for calls that mean the same. Raises `CallInvalid`, `TypeError`."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    packed = _packed(dict(bound.arguments), 0)
    if len(packed) > MAX_ARGUMENT_BYTES:
        raise CallInvalid(
            f"the arguments have {len(packed)} bytes, and {MAX_ARGUMENT_BYTES} are allowed: pass an id, and read"
            " inside"
        )
    return packed


def memo_key(cache: str, function: str, arguments: bytes) -> str:
    """Where the memo of a call is kept. Raises `KeyInvalid` if the names make no key."""
    return _key(cache, "memo", function, blake2b(arguments, digest_size=16).hexdigest())


def tag_keys(cache: str, tags: Iterable[str]) -> list[str]:
    """The keys that stand for ``tags``; whoever puts one ends the memos that depend on it."""
    if isinstance(tags, str):
        raise CallInvalid("tags are a list of texts, not one text")
    return [_key(cache, "tag", tag) for tag in tags]


def _key(cache: str, *args: str) -> str:
    """``cache`` may have its tenant before it."""
    tenant, slash, name = cache.rpartition("/")
    text = str(Key(tenant=tenant if slash else "default", cache=name, args=args))
    parse(text.encode())
    return text


def _packed(value: object, depth: int) -> bytes:
    """``value`` in one form only: dicts sorted, tuples and lists told apart, nothing taken for another type."""
    try:
        return bytes(msgpack.packb(_canonical(value, depth), strict_types=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise CallInvalid(
            f"an argument cannot be told apart by its value ({error}): pass None, booleans, integers of 64 bits,"
            " floats, text, bytes, or lists, tuples and dicts of these; for a method, memoise a function instead"
        ) from error


def _canonical(value: object, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise CallInvalid(f"the arguments nest deeper than {MAX_DEPTH} levels: pass an id, and read inside")
    if type(value) is dict:
        pairs = sorted((_packed(key, depth + 1), _packed(each, depth + 1)) for key, each in value.items())
        return msgpack.ExtType(_DICT, b"".join(part for pair in pairs for part in pair))
    if type(value) is tuple:
        return msgpack.ExtType(_TUPLE, b"".join(_packed(each, depth + 1) for each in value))
    if type(value) is list:
        return [_canonical(each, depth + 1) for each in value]
    return value


def name_of(function: Callable[..., Any]) -> str:
    """What a function is known by, unless it is given a name."""
    return f"{function.__module__}.{function.__qualname__}"
