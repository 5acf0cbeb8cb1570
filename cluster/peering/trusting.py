"""Whom a node lets in on its peer port, by its configuration."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cluster.access.watching import Followed
from cluster.config import NodeConfig, PeersConfig
from peers.discovery.forms import StaticForm, parse
from peers.pems import Pems, read_pems
from peers.trust import Trust

_LAST_NUMBER: Final = re.compile(r"[0-9]+$")
_NUMBER: Final = "[0-9]+"


def trust_of(config: NodeConfig) -> Trust | None:
    """Made of the files as they are now; None where nodes show no certificates. Raises `ConfigInvalid`."""
    peers = config.peers
    if not peers.cert_file:
        return None
    return Trust(_read(peers), cert_name=peers.cert_name, admits=admitting(config))


def admitting(config: NodeConfig) -> Callable[[str], bool]:
    """Which names of nodes are let in: those of ``peers.allowed``, else those that can be the cluster's."""
    form = parse(config.peers.discovery)
    if config.peers.allowed is not None:
        names: Iterable[str] = (re.escape(name).replace(r"\*", _NUMBER) for name in config.peers.allowed)
    elif isinstance(form, StaticForm):
        names = (re.escape(member.name) for member in form.members)
    else:
        stem = _LAST_NUMBER.sub("", config.name)
        names = (re.escape(stem) + (_NUMBER if stem != config.name else ""),)
    admitted = re.compile("|".join(names))
    return lambda name: admitted.fullmatch(name) is not None


def followed(config: PeersConfig, adopt: Callable[[Pems], None]) -> Followed[Pems]:
    """The files of a node's certificate."""
    files = [Path(file) for file in (config.cert_file, config.key_file, config.ca_file)]
    what = f"the certificate for peers of {config.cert_file}"
    return Followed(what=what, files=files, read=lambda: _read(config), adopt=adopt)


def _read(config: PeersConfig) -> Pems:
    return read_pems(config.cert_file, config.key_file, config.ca_file)
