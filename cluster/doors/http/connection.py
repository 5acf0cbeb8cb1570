"""One HTTP connection: h11 reads the requests, pages are answered at once, and every claim is bounded.

Requests are answered one after the other. While the other side does not read its answers nothing more is read from
it, so that it holds one answer of ours at most. A request that is no HTTP, or too large, is answered with the reason,
and ends the connection.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Final, cast

import h11

from cluster.doors.http.pages import Page, Pages, complaint

_FULL: Final = complaint(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections: http.max_connections")
_WORDLESS: Final = frozenset({h11.IDLE, h11.SEND_RESPONSE})
"""The states in which an answer can still be begun."""


class Connection(asyncio.Protocol):
    """``since_s`` is the monotonic time of its last complete request, at first of its beginning."""

    def __init__(
        self,
        *,
        pages: Pages,
        max_request_bytes: int,
        on_open: "Callable[[Connection], bool]",
        on_close: "Callable[[Connection], None]",
    ) -> None:
        self._pages = pages
        self._max_request_bytes = max_request_bytes
        self._on_open = on_open
        self._on_close = on_close
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=max_request_bytes)
        self._request: h11.Request | None = None
        self._body_bytes = 0
        self._writable = True
        self.since_s = monotonic()

    def __repr__(self) -> str:
        return f"<Connection {self._http.our_state}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._on_open(self):
            self._refuse(_FULL)

    def data_received(self, data: bytes) -> None:
        """Some of a request, or of several."""
        self._http.receive_data(data)
        self._run()

    def eof_received(self) -> None:
        """No more requests; the transport closes itself."""
        self._http.receive_data(b"")

    def pause_writing(self) -> None:
        """Answers pile up: nothing more is read."""
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """They have been read."""
        self._writable = True
        self._transport.resume_reading()
        self._run()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        """The connection is no more."""
        self._on_close(self)

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def close(self) -> None:
        """Close once what was answered has been sent."""
        self._transport.close()

    def _run(self) -> None:
        try:
            while self._writable and not self._transport.is_closing():
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            self._refuse(complaint(status, f"the request cannot be read: {error}"))

    def _take(self, event: object) -> None:
        match event:
            case h11.Request():
                self._request, self._body_bytes = event, 0
                if _size(event) > self._max_request_bytes:  # h11 bounds what is incomplete
                    self._too_large(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head")
            case h11.Data():
                self._body_bytes += len(event.data)
                if self._body_bytes > self._max_request_bytes:
                    self._too_large(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body")
            case h11.EndOfMessage():
                self._answer()
            case h11.ConnectionClosed():
                self._transport.close()

    def _answer(self) -> None:
        assert self._request is not None, "a message begins with its request"
        self.since_s = monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._request.headers}
        method, target = self._request.method.decode("ascii"), self._request.target.decode("ascii")
        self._send(self._pages.answer(method, target, headers), closing=False)
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self._transport.close()

    def _too_large(self, status: HTTPStatus, what: str) -> None:
        most = f"{self._max_request_bytes} bytes (http.max_request)"
        self._refuse(complaint(status, f"the {what} of the request is larger than {most}"))

    def _refuse(self, page: Page) -> None:
        if self._http.our_state in _WORDLESS:
            self._send(page, closing=True)
        self._transport.close()

    def _send(self, page: Page, *, closing: bool) -> None:
        headers = [*page.headers, ("Content-Length", str(len(page.body))), ("Cache-Control", "no-store")]
        if closing:
            headers.append(("Connection", "close"))
        answer = h11.Response(status_code=page.status, reason=page.status.phrase, headers=headers)
        parts: list[h11.Event] = [answer, h11.EndOfMessage()]
        if self._request is None or self._request.method != b"HEAD":
            parts.insert(1, h11.Data(data=page.body))
        self._transport.write(b"".join(self._http.send(part) or b"" for part in parts))


def _size(request: h11.Request) -> int:
    return len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
