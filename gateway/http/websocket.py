"""uvicorn's WebSocket protocol with bounds on what a client may make it hold."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

MOST_FRAGMENTS = 1024  # of one message


class BoundedSocket(WebSocketsSansIOProtocol):
    """websockets bounds a message's bytes, but not its fragments, nor answers that nobody reads.

    A client that does not read is cut off: closing would wait for it to take what is written already.
    """

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        else:
            self.transport.abort()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()
