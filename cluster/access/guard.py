"""Everything of access that a node's doors share, made of its configuration and kept up to date with its files.

A door takes it whole: ``gate`` says who a client is and what he may, ``tls`` is the context to listen with, and what
is put into ``reviews`` is called when either may have changed, so that a door can drop whom the gate no longer upholds.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cluster.access.certificates import Certificate, FollowingContext, files_of, read_certificate
from cluster.access.gate import Gate
from cluster.access.keys_file import load_keyring
from cluster.access.watching import Followed, Watch
from cluster.config import NodeConfig


class Guard:
    """Of one node, for one event loop. Raises `ConfigInvalid` if a file cannot be used as it is now.

    ``gate`` is None where anybody may do anything, ``tls`` where nothing is encrypted, and ``tls_of_probes``, which
    asks for no certificate; ``pems`` are what it is made
    of. Others have files of theirs followed by the same ``watch``.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self.reviews: list[Callable[[], None]] = []
        self.gate = _gate(config, clock, unix_time)
        certificate = read_certificate(config.tls) if config.tls.cert_file else None
        self.pems = certificate.pems if certificate else None
        self.tls = FollowingContext.of(certificate.context) if certificate else None
        self.tls_of_probes = FollowingContext.of(certificate.unasking) if certificate else None
        self.watch = Watch(
            list(self._followed(config)), period_s=config.access.reload_period_s, after=self._review
        )

    def __repr__(self) -> str:
        return f"<Guard {self.gate!r} {self.watch!r}>"

    def describe(self) -> dict[str, object]:
        """Credentials, quotas and files, as plain numbers."""
        return {
            **(self.gate.describe() if self.gate else {}),
            "tls": int(self.tls is not None),
            "files_reloaded": self.watch.reloads,
            "files_broken": self.watch.failures,
        }

    def _followed(self, config: NodeConfig) -> Iterable[Followed[Any]]:
        if (gate := self.gate) is not None:
            file = Path(config.access.keys_file)
            yield Followed(
                what=f"the API keys of {file}",
                files=[file],
                read=lambda: load_keyring(file),
                adopt=gate.renew,
            )
        if (tls := self.tls) is not None:
            yield Followed(
                what=f"the certificate of {config.tls.cert_file}",
                files=files_of(config.tls),
                read=lambda: read_certificate(config.tls),
                adopt=lambda certificate: self._show(tls, certificate),
            )

    def _show(self, tls: FollowingContext, certificate: Certificate) -> None:
        self.pems = certificate.pems
        tls.follow(certificate.context)
        if self.tls_of_probes is not None:
            self.tls_of_probes.follow(certificate.unasking)

    def _review(self) -> None:
        for review in self.reviews:
            review()


def _gate(config: NodeConfig, clock: Callable[[], float], unix_time: Callable[[], float]) -> Gate | None:
    if not config.access.keys_file:
        return None
    return Gate(
        load_keyring(Path(config.access.keys_file)),
        quota=config.quota,
        caches=config.caches,
        clock=clock,
        unix_time=unix_time,
    )
