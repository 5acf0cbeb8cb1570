"""Who a client is, and whom it believes: its API key, and how it speaks TLS. Files are followed as they change."""

import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

from snapring.errors import CallInvalid

_MAX_KEY_BYTES: Final = 4096

File = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to speak TLS, with PEM files that are read again when they change.

    ``ca_file``: the authorities that certify nodes, those of the system if None. ``server_name``: the name that every
    node's certificate has, where that is not the host in its address. ``cert_file`` and ``key_file``: what to show
    nodes that ask clients for certificates.
    """

    ca_file: File | None = None
    server_name: str | None = None
    cert_file: File | None = None
    key_file: File | None = None


class Credentials:
    """An API key or the file that holds it, and `Tls`; True for that of the system.

    Raises `CallInvalid` if the files cannot be read now. If they cannot be read later, what they held stays in force:
    the node judges it.
    """

    def __init__(
        self, api_key: str | None = None, api_key_file: File | None = None, tls: Tls | bool = False
    ) -> None:
        if api_key is not None and api_key_file is not None:
            raise CallInvalid("give api_key or api_key_file, not both")
        if not isinstance(api_key, str | None) or not isinstance(tls, Tls | bool | None):
            raise CallInvalid("api_key is text, and tls is True or a Tls: Tls(ca_file=…)")
        self.tls = Tls() if tls is True else tls or None
        self._key_file = Path(api_key_file) if api_key_file is not None else None
        self._key = _read_key(self._key_file) if self._key_file else api_key
        self._read: tuple[object, ...] = ()
        self._context: ssl.SSLContext | None = None
        if self.tls is not None:
            self._read = _state(self.tls)  # first: a change meanwhile is a change
            self._context = _context(self.tls)

    def __repr__(self) -> str:
        return f"<Credentials key={'yes' if self._key else 'no'} tls={'yes' if self.tls else 'no'}>"

    @property
    def server_name(self) -> str | None:
        """The name to ask for in place of the host's."""
        return self.tls.server_name if self.tls else None

    def key(self) -> str | None:
        """The API key to show on the next connection."""
        if self._key_file is not None:
            try:
                self._key = _read_key(self._key_file)
            except CallInvalid:
                return self._key
        return self._key

    def context(self) -> ssl.SSLContext | None:
        """What the next connection is wrapped in; None for TCP as it is."""
        if self.tls is None or (state := _state(self.tls)) == self._read:
            return self._context
        try:
            self._context, self._read = _context(self.tls), state
        except CallInvalid:
            return self._context
        return self._context


def _read_key(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            key = opened.read(_MAX_KEY_BYTES).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise CallInvalid(
            f"{file} holds no API key: {getattr(error, 'strerror', None) or 'no text'}"
        ) from error
    if not key:
        raise CallInvalid(f"{file} holds no API key: it is empty")
    return key


def _context(tls: Tls) -> ssl.SSLContext:
    if tls.key_file is not None and tls.cert_file is None:
        raise CallInvalid("key_file is the private key of cert_file: give that too")
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:  # which ssl.SSLError is
        raise CallInvalid(f"{tls.ca_file} holds no CA certificates: {error.strerror or error}") from error
    try:
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        raise CallInvalid(
            f"{tls.cert_file} and {tls.key_file or 'the same'} are no certificate and its key:"
            f" {error.strerror or error}"
        ) from error
    return context


def _state(tls: Tls) -> tuple[object, ...]:
    """Something else whenever the files may have changed."""
    return tuple(_stamp(file) for file in (tls.ca_file, tls.cert_file, tls.key_file) if file is not None)


def _stamp(file: File) -> object:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
