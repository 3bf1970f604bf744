"""From what a tool answered to what a model can be given. Pure."""

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

from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.tools.mcp_client.mcp_limits import PoolLimits

LONGEST_LABEL = 500  # characters of a name, an address or a media type in a remark


def output_of(result: CallToolResult, limits: PoolLimits) -> ToolOutput:
    """Within the limits. Texts are cut with a note; where there is no content, the structured one is written out."""
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
    kind = blob.mime_type or "unknown"
    if kind.startswith("image/"):
        return ToolImage(kind, blob.blob)
    return f"[Resource {_short(str(blob.uri))} ({_short(kind)}, binary) was left out.]"


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
        room -= len(piece) + 1  # an empty one takes room as well: there may be a million of them
    if left_out:
        kept.append(f"[The result was cut: {left_out} more characters were left out.]")
    if images > limits.images:
        kept.append(f"[{images - limits.images} images were left out.]")
    return tuple(kept)
