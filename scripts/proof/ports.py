"""Free ports for what has to come back at the port it had."""

import contextlib
import socket
from random import Random
from typing import Final

from scripts.demonstration.programs import ProgramFailed

_OURS: Final = range(20_000, 32_000)
"""None that the system gives to whoever connects: it could be gone while the program that has it is not there."""
_ATTEMPTS: Final = 100


def free_port(*hosts: str) -> int:
    """A TCP port that is free on all of ``hosts``, which are on loopback. Raises `ProgramFailed`."""
    for port in Random().sample(_OURS, _ATTEMPTS):
        with contextlib.ExitStack() as probes:
            try:
                for host in hosts:
                    probes.enter_context(socket.socket()).bind((host, port))
            except OSError as error:
                refused = error
                continue
            return port
    raise ProgramFailed(
        f"found no port that is free on each of {', '.join(hosts)}, which several nodes need ({refused}): "
        "on systems with 127.0.0.1 alone give the loopback interface the others, or say --nodes 1"
    )
