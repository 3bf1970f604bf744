"""Images that clients upload and then name in their chats.

Nothing is kept of them: of the two kinds of identifiers that LM Studio's clients know, "local:NAME" and
"base64:DATA", the second is the file itself.
"""

import asyncio
from typing import Any

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.image_reader import LARGE_CHARACTERS
from gateway.core.images import Allowance, EncodedImage, decode, known_image
from gateway.dialects.lmstudio_sdk.sdk_context import Work
from gateway.dialects.lmstudio_sdk.sdk_errors import parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import UploadParameter

CONTENT = "contentBase64"
ITSELF = "base64:"


async def upload_image(parameter: Any, work: Work) -> Json:
    """What a client makes its handle of; InvalidRequest when it is no image that is served."""
    content = parsed(UploadParameter, parameter).content_base64
    large = len(content) > LARGE_CHARACTERS
    return await asyncio.to_thread(handle_of, content) if large else handle_of(content)


def handle_of(content: str) -> Json:
    """Of an image in base64."""
    image = known_image(decode(EncodedImage(content, CONTENT), Allowance()), CONTENT)
    return {"identifier": f"{ITSELF}{content}", "fileType": "image", "sizeBytes": len(image)}


def image_of(identifier: str, path: str) -> EncodedImage:
    """The image that an identifier is; InvalidRequest where `handle_of` gave none such."""
    if not identifier.startswith(ITSELF):
        message = f"{path}: is no identifier that this server gave; upload the image to it (client.prepare_image)."
        raise InvalidRequest(message, param=path)
    return EncodedImage(identifier.removeprefix(ITSELF), path)
