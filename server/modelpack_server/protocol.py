"""HTTP/1.1 by uvicorn and httptools, with a limit on what a client may send before its request has begun."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelpack_server import problems

__all__ = ["MAX_HEAD", "Protocol"]

# Request line and headers together; what is longer is read no further.
MAX_HEAD = 64 * 1024


class Protocol(HttpToolsProtocol):
    """A connection that is closed with a 431 when the head of a request does not end."""

    _in_head = True
    _ended = False
    _size = 0

    def data_received(self, data: bytes) -> None:
        """Parse what has come; count it as long as it is nothing but the head of one request."""
        self._ended = False
        super().data_received(data)
        if not self._in_head or self._ended:
            self._size = 0
            return
        self._size += len(data)
        if self._size > MAX_HEAD and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request has ended: what comes next is the head of another."""
        self._in_head = self._ended = True
        super().on_message_complete()

    def _refuse(self) -> None:
        hint = "The body is the place for data."
        message = f"the request line and headers are longer than {MAX_HEAD} bytes"
        reply = problems.response(431, {"code": "header-too-large", "message": message, "hint": hint})
        head = [b"HTTP/1.1 431 Request Header Fields Too Large", b"Connection: close"]
        head += [name + b": " + value for name, value in reply.raw_headers]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + bytes(reply.body))
        self.transport.close()
