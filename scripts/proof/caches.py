"""A cache under proof: its SQL for the node, and the same answer computed from the rows. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scripts.proof.history import State

Truth = Callable[[State, str], object]
"""What a cache must answer for an argument (the empty text where it takes none) when the rows are these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """``tables`` are those that ``truth`` looks at, ``settings`` further lines of its section.

    Without ``sql`` it is a `store` cache.
    """

    name: str
    tables: tuple[str, ...]
    truth: Truth
    sql: str = ""
    arguments: tuple[str, ...] = ("",)
    single: bool = False
    max_staleness_s: float = 1.0
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that is read."""
        return tuple(f"{self.name}:{argument}" if argument else self.name for argument in self.arguments)

    def toml(self) -> str:
        """The body of its section in a node's configuration."""
        kind = {"sql": f"'''{self.sql}'''", "single": str(self.single).lower()}
        lines = {
            **(kind if self.sql else {"kind": '"store"'}),
            "max_staleness": f'"{self.max_staleness_s * 1000:g}ms"',
            **self.settings,
        }
        return "\n".join(f"{name} = {value}" for name, value in lines.items())
