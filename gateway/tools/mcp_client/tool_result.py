"""The result of a call as model input, within limits. Pure."""

import json
from collections.abc import Iterable

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from atelier.json_types import Json
from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.core.schema_check import disagreement
from gateway.tools.mcp_client.mcp_limits import PoolLimits

LONGEST_LABEL = 500  # characters of a name, an address or a media type in a note


def checked_output(result: CallToolResult, schema: Json, limits: PoolLimits) -> ToolOutput:
    """An error output if the structured result violates the tool's output schema."""
    violation = disagreement(schema, result.structured_content)
    if violation is not None:
        return failed(f"The tool's output violates its schema: {violation}")
    return output_of(result, limits)


def output_of(result: CallToolResult, limits: PoolLimits) -> ToolOutput:
    """Text beyond the limit is cut, with a note. Structured content is used only if there is no other."""
    pieces = [_piece(block) for block in result.content]
    if not pieces and result.structured_content is not None:
        pieces = [json.dumps(result.structured_content, ensure_ascii=False)]
    return ToolOutput(_within(pieces, limits), is_error=bool(result.is_error))


def failed(message: str) -> ToolOutput:
    return ToolOutput((message,), is_error=True)


def _piece(block: ContentBlock) -> str | ToolImage:
    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return ToolImage(block.mime_type, block.data)
        case AudioContent():
            return f"[Audio ({_short(block.mime_type)}) was left out.]"
        case ResourceLink():
            return _link(block)
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case EmbeddedResource(resource=BlobResourceContents() as blob):
            return _blob(blob)
    return "[Content of an unknown kind was left out.]"


def _link(link: ResourceLink) -> str:
    about = f": {_short(link.description)}" if link.description else ""
    return f"[Resource {_short(link.name)} at {_short(str(link.uri))}{about}]"


def _blob(blob: BlobResourceContents) -> str | ToolImage:
    media_type = blob.mime_type or "unknown"
    if media_type.startswith("image/"):
        return ToolImage(media_type, blob.blob)
    return f"[Resource {_short(str(blob.uri))} ({_short(media_type)}, binary) was left out.]"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}..."


def _within(pieces: Iterable[str | ToolImage], limits: PoolLimits) -> tuple[str | ToolImage, ...]:
    room, images = limits.result, 0
    kept: list[str | ToolImage] = []
    left_out = 0
    for piece in pieces:
        if isinstance(piece, ToolImage):
            images += 1
            if images <= limits.images:
                kept.append(piece)
            continue
        if room > 0:
            kept.append(piece[:room])
        left_out += max(0, len(piece) - max(room, 0))
        room -= len(piece) + 1  # an empty piece counts too: a result may have a million of them
    if left_out:
        kept.append(f"[The result was cut: {left_out} more characters were left out.]")
    if images > limits.images:
        kept.append(f"[{images - limits.images} images were left out.]")
    return tuple(kept)
