"""The doors' TLS: contexts made of files, and one that follows them without a restart.

TLS 1.2 is the least. A new connection gets the newest context that was whole; those there are keep theirs.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import TlsConfig
from peers.pems import Pems, read_pems
from snapring.errors import ConfigInvalid


def server_context(config: TlsConfig, *, asks: bool = True) -> ssl.SSLContext:
    """A server's context of ``config``'s files, which must be sound: `read_pems` says what is wrong with them.

    Unless it ``asks``, clients need no certificate of their own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(config.cert_file, config.key_file)
    if config.client_ca_file and asks:
        context.load_verify_locations(config.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@dataclass(frozen=True, slots=True)
class Certificate:
    """The same files again and again: as asyncio listens with them, asking clients for theirs or not, and as gRPC does."""

    context: ssl.SSLContext
    unasking: ssl.SSLContext
    pems: Pems


def read_certificate(config: TlsConfig) -> Certificate:
    """What ``config``'s files hold. Raises `ConfigInvalid`, which names the file that is at fault."""
    pems = read_pems(config.cert_file, config.key_file, config.client_ca_file)
    try:
        return Certificate(server_context(config), server_context(config, asks=False), pems)
    except (OSError, ValueError) as error:
        raise ConfigInvalid([f"{config.cert_file} changed while it was read: {error}"]) from None


class FollowingContext(ssl.SSLContext):
    """A server's context whose connections are made by ``current``, the newest.

    Replacing all of it, not what it loaded, changes certificate, key and CA at once, or none of them.
    """

    current: ssl.SSLContext

    @classmethod
    def of(cls, current: ssl.SSLContext) -> "FollowingContext":
        """One that begins with ``current``."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.current = current
        return context

    def follow(self, newest: ssl.SSLContext) -> None:
        """Connections from now on are made by ``newest``."""
        self.current = newest

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """What event loops call for each connection."""
        return self.current.wrap_bio(*arguments, **options)


def files_of(config: TlsConfig) -> list[Path]:
    """The files that a context is made of."""
    return [Path(file) for file in (config.cert_file, config.key_file, config.client_ca_file) if file]
