"""``snapring put`` and ``snapring del``: writes to store caches, each one transaction."""

import os
import sys
from pathlib import Path
from typing import BinaryIO, Final

from cluster.commands import reach
from cluster.commands.outcomes import OK
from cluster.commands.run import CallError, Run, print_json, print_line
from snapring import Delete, Put, Written
from snapring.writing import Change

_MAX_BYTES: Final = 256 * 2**20
_STDIN: Final = "-"


def put(run: Run) -> int:
    """Put one value. After code 6 it may have happened, after any other but 0 it has not."""
    asked = run.arguments
    if asked.new and asked.if_version is not None:
        raise CallError("--new is --if-version 0: give one of them")
    if (asked.value is None) == (asked.file is None):
        raise CallError("give the value, or - for standard input, or --file FILE")
    demanded = 0 if asked.new else asked.if_version
    return _write(run, [Put(asked.key, _value(run), demanded)])


def delete(run: Run) -> int:
    """Delete all of the keys or, if one cannot be, none."""
    keys, demanded = run.arguments.keys, run.arguments.if_version
    if demanded is not None and len(keys) > 1:
        raise CallError("--if-version is about one key: delete the others by themselves")
    return _write(run, [Delete(key, demanded) for key in keys])


def _write(run: Run, changes: list[Change]) -> int:
    with reach.client(run) as client:
        written = client.write(changes)
    _print(run, written)
    return OK


def _print(run: Run, written: Written) -> None:
    if run.terminal:
        version = f"version {written.version}, " if written.version else ""
        print_line(f"done: {version}token {written.token}")
    else:
        print_json({"token": written.token, "version": written.version})


def _value(run: Run) -> bytes:
    asked = run.arguments
    if asked.file is not None:
        try:
            with Path(asked.file).open("rb") as opened:
                return _all_of(opened, asked.file)
        except OSError as error:
            raise CallError(
                f"--file: {run.arguments.file}: {(error.strerror or str(error)).lower()}"
            ) from error
    if asked.value == _STDIN:
        return _all_of(sys.stdin.buffer, "standard input")
    return os.fsencode(asked.value)


def _all_of(opened: BinaryIO, source: str) -> bytes:
    value = opened.read(_MAX_BYTES + 1)
    if len(value) > _MAX_BYTES:
        raise CallError(
            f"{source} holds more than the {_MAX_BYTES} bytes that any node takes (write.max_value)"
        )
    return value
