"""Anthropic's messages as messages for chat templates. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_text
from gateway.core.call import tool_call_entry, tool_message
from gateway.core.images import EncodedImage, ImageSource, content_of, image_at
from gateway.dialects.anthropic.anthropic_requests import (
    Base64Source,
    Block,
    ContentSource,
    ConversationMessage,
    DocumentBlock,
    ImageBlock,
    OtherBlock,
    RedactedThinkingBlock,
    ResultBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)

PlacedBlock = tuple[str, Block]
"""The path of a block in the body, and the block."""


def chat_messages(system: str | Sequence[ResultBlock] | None, messages: Sequence[ConversationMessage]) -> list[Json]:
    """Successive messages of one role become one, as in Anthropic's API: many templates reject them otherwise.

    Raises InvalidRequest, UnsupportedField.
    """
    found: list[Json] = [{"role": "system", "content": text_of(system, "system")}] if system else []
    names: dict[str, str] = {}  # of the called tools, by call id
    placed = [(message.role, block) for i, message in enumerate(messages) for block in _blocks(message, i)]
    for role, turn in groupby(placed, key=lambda entry: entry[0]):
        blocks = [block for _, block in turn]
        found += [assistant_turn(blocks, names)] if role == "assistant" else user_turn(role, blocks, names)
    return found


def assistant_turn(blocks: Sequence[PlacedBlock], names: dict[str, str]) -> Json:
    """Adds the names of the called tools to `names`, by call id."""
    turn = _AssistantTurn()
    for path, block in blocks:
        match block:
            case TextBlock(text=text):
                turn.texts.append(text)
            case ThinkingBlock(thinking=thinking):
                turn.thoughts.append(thinking)
            case ToolUseBlock():
                names[block.id] = block.name
                turn.calls.append(tool_call_entry(block.id, block.name, json_text(block.input)))
            case RedactedThinkingBlock():
                pass  # it is encrypted
            case _:
                raise _misplaced(path, block, "assistant")
    return turn.message()


@dataclass(slots=True)
class _AssistantTurn:
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Json] = field(default_factory=list)

    def message(self) -> Json:
        message: Json = {"role": "assistant", "content": "\n".join(self.texts)}
        if thoughts := "\n".join(filter(None, self.thoughts)):
            message["reasoning_content"] = thoughts
        return {**message, "tool_calls": self.calls} if self.calls else message


def user_turn(role: str, blocks: Sequence[PlacedBlock], names: dict[str, str]) -> list[Json]:
    """Each tool result becomes a message; so does each run of other blocks between them."""
    found: list[Json] = []
    for of_tool, run in groupby(blocks, key=lambda entry: isinstance(entry[1], ToolResultBlock)):
        if of_tool:
            found += [result_message(path, block, role, names) for path, block in run]
        else:
            pieces = (piece for path, block in run for piece in _pieces(path, block, role))
            found.append({"role": role, "content": content_of(pieces)})
    return found


def result_message(path: str, block: Block, role: str, names: dict[str, str]) -> Json:
    """A tool result. Chat templates have no field for a failure, so its text begins with "Error"."""
    if role != "user" or not isinstance(block, ToolResultBlock):
        raise _misplaced(path, block, role)
    if (name := names.get(block.tool_use_id)) is None:
        param = f"{path}.tool_use_id"
        raise InvalidRequest(f'{param}: no earlier tool_use has the id "{block.tool_use_id[:64]}"', param=param)
    pieces = result_pieces(block.content or "", f"{path}.content")
    if block.is_error:
        pieces = as_error(pieces)
    return tool_message(block.tool_use_id, name, content_of(pieces))


def result_pieces(content: str | Sequence[ResultBlock], path: str) -> list[str | ImageSource]:
    if isinstance(content, str):
        return [content]
    return [piece for i, block in enumerate(content) for piece in _pieces(f"{path}[{i}]", block)]


def as_error(pieces: list[str | ImageSource]) -> list[str | ImageSource]:
    match pieces:
        case [str(text), *others] if text:
            return [f"Error: {text}", *others]
        case _:
            return ["Error", *(piece for piece in pieces if piece)]


def text_of(content: str | Sequence[ResultBlock], path: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_text(f"{path}[{i}]", block) for i, block in enumerate(content))


def _blocks(message: ConversationMessage, number: int) -> Iterator[PlacedBlock]:
    path = f"messages[{number}].content"
    if isinstance(message.content, str):
        yield path, TextBlock(type="text", text=message.content)
    elif message.content or message.role == "assistant":  # its reply may have been empty
        yield from ((f"{path}[{i}]", block) for i, block in enumerate(message.content))
    else:
        raise InvalidRequest(f"{path}: must contain at least one block", param=path)


def _pieces(path: str, block: Block, role: str = "user") -> list[str | ImageSource]:
    match block:
        case ImageBlock():
            return [image(block, path)]
        case DocumentBlock():
            heading = [line for line in (block.title, block.context) if line]
            return [*heading, *document(block, path)]
        case SearchResultBlock():
            return [block.title, block.source, *(part.text for part in block.content)]
        case _:
            return [_text(path, block, role)]


def document(block: DocumentBlock, path: str) -> list[str | ImageSource]:
    match block.source:
        case TextSource(data=text):
            return [text]
        case ContentSource(content=content):
            return result_pieces(content, f"{path}.source.content")
        case source:
            param = f"{path}.source.type"
            raise UnsupportedField(f'{param}: must be "text" or "content", not "{source.type[:40]}"', param=param)


def image(block: ImageBlock, path: str) -> ImageSource:
    match block.source:
        case Base64Source(data=data):
            return EncodedImage(data, f"{path}.source.data")
        case UrlSource(url=url):
            return image_at(url, f"{path}.source.url")
        case source:
            param = f"{path}.source.type"
            raise UnsupportedField(f'{param}: must be "base64" or "url", not "{source.type[:40]}"', param=param)


def _text(path: str, block: Block, role: str = "user") -> str:
    if isinstance(block, TextBlock):
        return block.text
    raise _misplaced(path, block, role)


def _misplaced(path: str, block: Block, role: str) -> InvalidRequest:
    if not isinstance(block, OtherBlock):
        return InvalidRequest(f"{path}.type: {block.type} is not allowed in a {role} message", param=f"{path}.type")
    return UnsupportedField(
        f'{path}: blocks of type "{block.type[:40]}" are not supported; send text, images or text documents.',
        param=path,
    )
