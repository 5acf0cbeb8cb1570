"""The programs the demonstration runs as child processes: pgbench, the `snapring` command, the node."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

SNAPRING: Final = (sys.executable, "-c", "from cluster.cli import main; raise SystemExit(main())")
_STOP_TIMEOUT_S: Final = 10.0


class ProgramFailed(RuntimeError):
    """A program ended with an error; the message holds its last words."""


async def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; what it printed. Raises `ProgramFailed`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    output = (await process.communicate())[0].decode(errors="replace")
    if process.returncode:
        raise ProgramFailed(f"{_shown(command)} ended with status {process.returncode}:\n{output.strip()}")
    return output


@contextlib.asynccontextmanager
async def running(
    *command: str, log_file: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that runs as long as the context; ended by SIGTERM, or SIGKILL if that does not do."""
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        await _end(process)


def last_words(log_file: Path, lines: int = 12) -> str:
    """The end of a program's log."""
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-lines:])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _shown(command: Sequence[str]) -> str:
    return "snapring " + " ".join(command[3:]) if command[:3] == SNAPRING else " ".join(command)
