"""Ports that other programs have, told of by the setting that names them."""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRINUSE

from cluster.asking import show_door
from snapring.errors import ConfigInvalid


@contextmanager
def naming(section: str, host: str, port: int | None) -> Iterator[None]:
    """Raises `ConfigInvalid` in place of an `OSError` that says that ``port``, which ``section`` names, is taken."""
    try:
        yield
    except OSError as error:
        if error.errno != EADDRINUSE or not port:
            raise
        where = show_door(host, port)
        problem = f"{section}.port: {where} is taken: give another, or 0 for any free one"
        raise ConfigInvalid([problem]) from error
