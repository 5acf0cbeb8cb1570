"""What a caller demands of an answer, as words of a command. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from snapring.errors import CallInvalid
from snapring.floors import split
from snapring.keys import Key

MAX_KEYS: Final = 1000
"""Most keys read at once; a node takes 1,024 words in one command unless told otherwise."""

Word = bytes | str


@dataclass(frozen=True, slots=True)
class Asked:
    """``at_least`` these tokens; or ``exactly`` one; or ``strong``; or none of them."""

    at_least: tuple[str, ...] = ()
    exactly: str | None = None
    strong: bool = False

    @property
    def options(self) -> tuple[Word, ...]:
        """The words after a key, where there is at most one token."""
        if self.exactly is not None:
            return (b"EXACT", self.exactly)
        if self.strong:
            return (b"STRONG",)
        return (b"ATLEAST", self.at_least[0]) if self.at_least else ()


PLAIN: Final = Asked()


def asked(at_least: str | None, exactly: str | None, *, strong: bool) -> Asked:
    """What the arguments of a call say. Raises `CallInvalid`."""
    if (at_least is not None) + (exactly is not None) + bool(strong) > 1:
        raise CallInvalid("ask for one of at_least, exactly and strong")
    if exactly is not None and len(split(exactly)) > 1:
        raise CallInvalid("exactly takes one token, such as as_of of a reply; a session's may be several")
    return Asked(split(at_least) if at_least is not None else (), exactly, bool(strong))


def text_of(key: str | Key) -> str:
    """The text of ``key``, without a token. Raises `CallInvalid`."""
    text = key if isinstance(key, str) else str(key) if isinstance(key, Key) else None
    if text is None:
        raise CallInvalid(f"a key is text or a Key, not {type(key).__name__}")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise CallInvalid(f"{text[:80]!a} is no text that UTF-8 knows")
    if not text or text.startswith("{"):
        raise CallInvalid(f"expected a key without a token, not {text[:80]!r}: a token is given as at_least")
    return text


def listed(keys: Iterable[str | Key]) -> list[str | Key]:
    """``keys`` as a list. Raises `CallInvalid` for one key in place of several."""
    if isinstance(keys, str | bytes | Key):
        raise CallInvalid(f"expected several keys, not one: [{str(keys)[:80]!r}], or get")
    return list(keys)


def texts_of(keys: Sequence[str | Key]) -> list[str]:
    """The texts of ``keys``, each once, in their order. Raises `CallInvalid`."""
    texts = list(dict.fromkeys(map(text_of, keys)))
    if len(texts) > MAX_KEYS:
        raise CallInvalid(f"{len(texts)} keys are too many to read at once: ask for at most {MAX_KEYS}")
    return texts


def together(keys: Sequence[str], tokens: Sequence[str]) -> Iterator[str]:
    """The words of SNAP.MGET that read ``keys`` at one snapshot, at least as new as every one of ``tokens``.

    The node answers all keys where the newest of them is true, so each token need stand at one key only. Where
    there are more tokens than keys the first key comes again, behind the others.
    """
    for n in range(max(len(keys), len(tokens))):
        key = keys[n] if n < len(keys) else keys[0]
        yield f"{{{key}}}@{tokens[n]}" if n < len(tokens) else key
