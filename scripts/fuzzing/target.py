"""What is fuzzed, and what may become of an input: nothing, or a defect."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar


class Broken(AssertionError):
    """A promise that an input has broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What a target stands on: a ``folder`` of its own, the URL of a ``database``, the ``port`` of a node that is apart."""

    folder: Path
    database: str = ""
    port: int = 0


class Target(ABC):
    """Reads inputs, of at most ``max_bytes``; ``words`` are worth putting into them."""

    words: ClassVar[tuple[bytes, ...]] = ()
    max_bytes: ClassVar[int] = 4096

    @abstractmethod
    def seeds(self) -> Iterable[bytes]:
        """Inputs to begin with."""

    @abstractmethod
    def attempt(self, data: bytes) -> None:
        """Read ``data``. Raises `Broken` where a promise is, and whatever a defect raises."""

    def changed(self, data: bytes, random: Random) -> bytes | None:  # noqa: ARG002 -- chance needs neither
        """Another input that is like ``data``, made by who knows what it means; None leaves that to chance."""
        return None


def hold(promise: object, otherwise: str) -> None:
    """Raise `Broken` unless ``promise`` is kept."""
    if not promise:
        raise Broken(otherwise)
