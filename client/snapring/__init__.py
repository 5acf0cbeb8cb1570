"""What an application shares with a Snapring cluster: keys and errors."""

from snapring.errors import SnapringError
from snapring.keys import Key, parse, slot_of

__all__ = ["Key", "SnapringError", "parse", "slot_of"]
