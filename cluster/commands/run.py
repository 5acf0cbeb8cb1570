"""One call of the program: what its command was asked, and where its answer goes."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.settings.load import Settings, Surroundings, load


class CallError(Exception):
    """The words of the call do not go together; the message says how they would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """``arguments`` are the subcommand's own; ``flags`` the settings given as ``--section.key=value``."""

    arguments: Namespace
    file: Path | None
    flags: tuple[tuple[str, str], ...]
    surroundings: Surroundings
    json: bool = False

    def settings(self, *, preset: Iterable[tuple[str, str]] = ()) -> Settings:
        """The settings in force; ``preset`` are flags that the user's own win over.

        Raises `ConfigInvalid`.
        """
        return load(self.file, [*preset, *self.flags], self.surroundings)

    @property
    def terminal(self) -> bool:
        """Whether a person reads the answer as it comes."""
        return sys.stdout.isatty() and not self.json


def print_line(text: str) -> None:
    """One line of the answer."""
    sys.stdout.write(f"{text}\n")


def print_json(answer: object) -> None:
    """The answer for programs."""
    print_line(json.dumps(answer, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The answer for a person at a terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def complain(text: str, stream: TextIO | None = None) -> None:
    """A message beside the answer."""
    (stream or sys.stderr).write(f"snapring: {text}\n")
