"""Whom a child process runs as: the caller's own account, or an unprivileged one where the caller is root."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any, Final

_UNPRIVILEGED: Final = ("nobody", "daemon")


class NoAccount(RuntimeError):
    """The caller is root, and this machine has no account to drop to."""


class Account:
    """The account of child processes, for programs that refuse to run as root. Raises `NoAccount`."""

    def __init__(self) -> None:
        self._entry = _unprivileged() if os.geteuid() == 0 else None

    @property
    def name(self) -> str | None:
        """The account's name; None for the caller's own, which reaches what the caller reaches."""
        return self._entry.pw_name if self._entry else None

    def give(self, path: Path) -> None:
        """Make the account the owner of what the caller made."""
        if self._entry:
            os.chown(path, self._entry.pw_uid, self._entry.pw_gid, follow_symlinks=False)

    def give_tree(self, root: Path) -> None:
        """`give` a directory and everything in it."""
        for path in (root, *root.rglob("*")):
            self.give(path)

    def can_run(self, *command: str) -> bool:
        """Whether the account may run the command, and it succeeds."""
        try:
            return self.run(*command).returncode == 0
        except PermissionError:
            return False

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end with ``given`` as its input."""
        return subprocess.run(  # noqa: S603
            command, check=False, capture_output=True, input=given, encoding="utf-8", **self.child()
        )

    def child(self) -> dict[str, Any]:
        """How `subprocess` starts a child as this account, blind to the caller's ``PG…`` variables."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        child: dict[str, Any] = {"cwd": "/", "env": {**variables, "LC_ALL": "C"}}
        if self._entry:
            child |= {"user": self._entry.pw_uid, "group": self._entry.pw_gid, "extra_groups": []}
        return child


def _unprivileged() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoAccount(f"no account of {_UNPRIVILEGED} exists")
