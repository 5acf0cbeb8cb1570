"""What counts as a time to wait. Pure."""

from math import inf


def is_time(seconds: object) -> bool:
    """Whether ``seconds`` are a finite number of them, more than 0."""
    return isinstance(seconds, int | float) and 0 < seconds < inf
