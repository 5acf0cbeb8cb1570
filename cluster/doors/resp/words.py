"""The words of a command: keys, options, numbers, consistency."""

from collections.abc import Iterator
from typing import Final

from cluster.doors.reads import Reads
from cluster.doors.resp.commands import shown
from cluster.requests import STRONG, Consistency
from snapring.errors import CommandInvalid
from snapring.keys import Key, parse

_MAX_DIGITS: Final = 20


def plain_key(text: bytes) -> Key:
    """The key in ``text``, which must not carry a token."""
    key, token = parse(text)
    if token is not None:
        raise CommandInvalid("this command takes a key without a token")
    return key


def following(rest: Iterator[bytes], option: bytes) -> bytes:
    """The word after ``option``."""
    word = next(rest, None)
    if word is None:
        raise CommandInvalid(f"{shown(option)} needs a value")
    return word


def consistency(node: Reads, option: bytes, rest: Iterator[bytes]) -> Consistency | None:
    """What ``STRONG``, ``ATLEAST token`` or ``EXACT token`` asks for, None for any other option."""
    match option.upper():
        case b"STRONG":
            return STRONG
        case b"ATLEAST":
            return node.at_least(_token(following(rest, option)))
        case b"EXACT":
            return node.exactly(_token(following(rest, option)))
    return None


def number(word: bytes, name: str, most: int, *, least: int = 1) -> int:
    """``word`` as a whole number in bounds."""
    found = int(word) if word.isdigit() and len(word) <= _MAX_DIGITS else -1
    if not least <= found <= most:
        raise CommandInvalid(f"{name} must be a whole number from {least} to {most}")
    return found


def _token(word: bytes) -> str:
    return word.decode("ascii", "replace")
