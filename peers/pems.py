"""A certificate, its key and the authorities trusted beside it, read from files together."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from snapring.errors import ConfigInvalid

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pems:
    """In PEM. ``authorities`` is empty where nobody has to show a certificate."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    authorities: bytes = field(repr=False, default=b"")

    def trusts_all_of(self, older: "Pems") -> bool:
        """Whether every authority of ``older`` is one still."""
        now = set(_CERTIFICATE.findall(self.authorities))
        return now.issuperset(_CERTIFICATE.findall(older.authorities))


def read_pems(cert_file: str, key_file: str, ca_file: str = "") -> Pems:
    """What the files hold. Raises `ConfigInvalid` if the key is not the certificate's, or a file is no PEM.

    The message names files, never what is in them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_passphrase)
    except (OSError, ValueError) as error:
        problem = f"{cert_file} and {key_file} are no certificate and its key: {_reason(error)}"
        raise ConfigInvalid([problem]) from None
    try:
        if ca_file:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:
        raise ConfigInvalid([f"{ca_file} holds no CA certificates: {_reason(error)}"]) from None
    return Pems(
        chain=Path(cert_file).read_bytes(),
        key=Path(key_file).read_bytes(),
        authorities=Path(ca_file).read_bytes() if ca_file else b"",
    )


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, which nobody is there to type")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
