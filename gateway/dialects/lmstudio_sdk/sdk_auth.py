"""Who may use a socket."""

from typing import Any

from starlette.websockets import WebSocket

from atelier.errors import Unauthenticated
from gateway.dialects.lmstudio_sdk.sdk_errors import parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import AuthFrame
from gateway.http.guards import KEY_SHOWN, ServerKey


class SocketKey:
    """The server's key, in the socket's head or in its first frame; None: whoever comes is let in."""

    def __init__(self, key: ServerKey | None) -> None:
        self._key = key

    def check(self, websocket: WebSocket, frame: dict[str, Any]) -> None:
        """Unauthenticated without the key, InvalidRequest when it is no first frame."""
        auth = parsed(AuthFrame, frame)
        if self._key is None or websocket.scope.get(KEY_SHOWN):
            return
        # LM Studio's newer clients take its tokens apart: sk-lm-IDENTIFIER:PASSKEY.
        whole = f"sk-lm-{auth.client_identifier}:{auth.client_passkey}"
        if not self._key.is_among(form.encode() for form in (auth.client_passkey, whole)):
            raise Unauthenticated('Send the server\'s key as clientPasskey, or as "Authorization: Bearer KEY".')
