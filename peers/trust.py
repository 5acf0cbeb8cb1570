"""Which nodes a node believes, and the certificate by which they believe it. Both ends of a connection show theirs.

A certificate of the cluster's authority is not enough: its client may have one too. The name in it must be the one
that a node of the name given in the hello would have, and that node must be one of those let in.
"""

from collections.abc import Callable, Collection
from typing import Final

import grpc

from peers.pems import Pems

NODE: Final = "{node}"
"""Stands for a node's name in the name of its certificate."""


class Trust:
    """``cert_name`` is the DNS name in a node's certificate, `NODE` for its name; ``admits`` says who is let in."""

    def __init__(self, pems: Pems, *, cert_name: str, admits: Callable[[str], bool]) -> None:
        self._pems = pems
        self._cert_name = cert_name
        self._admits = admits

    def __repr__(self) -> str:
        return f"<Trust in {self._cert_name}>"

    @property
    def pems(self) -> Pems:
        """What new connections show and trust."""
        return self._pems

    def renew(self, pems: Pems) -> None:
        """What new connections show and trust from now on; those there are keep theirs."""
        self._pems = pems

    def name_of(self, node: str) -> str:
        """The name that the certificate of ``node`` must be for."""
        return self._cert_name.replace(NODE, node)

    def believes(self, node: str, names: Collection[str]) -> bool:
        """Whether who says to be ``node`` is, by the ``names`` in his certificate, and is let in."""
        return self._admits(node) and self.name_of(node) in names

    def for_asking(self) -> grpc.ChannelCredentials:
        """For one channel: it keeps them."""
        pems = self._pems
        return grpc.ssl_channel_credentials(
            root_certificates=pems.authorities, private_key=pems.key, certificate_chain=pems.chain
        )

    def for_answering(self) -> grpc.ServerCredentials:
        """For a server: each new connection gets the newest."""
        return serving(lambda: self._pems)


def serving(newest: Callable[[], Pems]) -> grpc.ServerCredentials:
    """A gRPC server's credentials that follow ``newest``; clients must show a certificate where it has authorities."""
    given = newest()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        pems = newest()
        if pems is given:
            return None
        given = pems
        return _configuration(pems)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), fetch, require_client_authentication=bool(given.authorities)
    )


def names_in(certificate: object) -> frozenset[str]:
    """The DNS names in what gRPC knows of a client's certificate."""
    found = certificate.get("x509_subject_alternative_name", ()) if isinstance(certificate, dict) else ()
    return frozenset(name.decode("ascii", "replace") for name in found)


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.chain)], root_certificates=pems.authorities or None
    )
