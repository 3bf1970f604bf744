"""A request's input as items in the format that is stored and listed. Pure."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_bytes
from gateway.dialects.responses.hosted_call_items import protocol_error
from gateway.dialects.responses.item_requests import (
    ApprovalRequestItem,
    ApprovalResponseItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    Input,
    Item,
    ItemReference,
    ListedTool,
    MCPCallItem,
    MCPListItem,
    MessageItem,
    OtherItem,
    Part,
    ReasoningItem,
    ToolFailure,
)
from gateway.dialects.responses.response_items import input_item_id

TEXT_PARTS = ("input_text", "output_text", "text")

Value = TypeVar("Value")


def referenced_ids(given: Input) -> list[str]:
    if isinstance(given, str):
        return []
    return list(dict.fromkeys(item.id for item in given if isinstance(item, ItemReference)))


def input_items(given: Input, response_id: str, referenced: Mapping[str, Json]) -> list[Json]:
    """`referenced`: the items that the input refers to, by id. Raises UnsupportedField and InvalidRequest."""
    if isinstance(given, str):
        return [_message(MessageItem(role="user", content=given), "input", input_item_id(response_id, "message", 0))]
    return [_item(item, number, response_id, referenced) for number, item in enumerate(given)]


def _item(item: Item, number: int, response_id: str, referenced: Mapping[str, Json]) -> Json:
    path = f"input[{number}]"
    match item:
        case ItemReference(id=id):
            if (found := referenced.get(id)) is None:
                raise InvalidRequest(f'{path}.id: no stored response has an item "{id}"', param=f"{path}.id")
            return found
        case OtherItem(type=kind):
            raise UnsupportedField(f'{path}.type: items of type "{kind[:40]}" are not supported', param=f"{path}.type")
        case MessageItem():
            return _message(item, path, item.id or input_item_id(response_id, "message", number))
        case FunctionCallItem():
            names = ("call_id", "name", "arguments")
            content = {name: getattr(item, name) for name in names}
        case FunctionCallOutputItem():
            content = {"call_id": item.call_id, "output": _output(item.output, f"{path}.output")}
        case MCPCallItem() | MCPListItem() | ApprovalRequestItem() | ApprovalResponseItem():
            id = item.id or input_item_id(response_id, item.type, number)
            return {"id": id, "type": item.type, **_served(item, path)}
        case ReasoningItem():
            content = {"summary": _texts(item.summary, f"{path}.summary", "summary_text")}
            if item.content is not None:
                content["content"] = _texts(item.content, f"{path}.content", "reasoning_text")
    id = item.id or input_item_id(response_id, item.type, number)
    return {"id": id, "type": item.type, **content, "status": item.status or "completed"}


def _served(item: MCPCallItem | MCPListItem | ApprovalRequestItem | ApprovalResponseItem, path: str) -> Json:
    """The fields of an item that concerns a server's tools."""
    match item:
        case MCPCallItem():
            names: tuple[str, ...] = ("server_label", "name", "arguments", "approval_request_id", "output")
            facts = {name: getattr(item, name) for name in names}
            error = _failure(item.error, f"{path}.error")
            return {**facts, "error": error, "status": item.status or ("failed" if error else "completed")}
        case MCPListItem():
            tools = [_listed(tool, f"{path}.tools[{number}]") for number, tool in enumerate(item.tools)]
            return {"server_label": item.server_label, "tools": tools}
        case ApprovalRequestItem():
            names = ("server_label", "name", "arguments")
        case ApprovalResponseItem():
            names = ("approval_request_id", "approve", "reason")
    return {name: getattr(item, name) for name in names}


def _encodable(value: Value, path: str) -> Value:
    """The value. Raises InvalidRequest if a response could not repeat it."""
    json_bytes(value, path)
    return value


def _failure(error: str | ToolFailure | None, path: str) -> Json | None:
    """Older clients send a text."""
    if error is None:
        return None
    if isinstance(error, str):
        return protocol_error(error)
    if error.type == "mcp_tool_execution_error":
        return {"type": error.type, "content": _encodable(error.content, f"{path}.content")}
    return {"type": error.type, "code": _encodable(error.code or 0, f"{path}.code"), "message": error.message or ""}


def _listed(tool: ListedTool, path: str) -> Json:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": _encodable(tool.input_schema, f"{path}.input_schema"),
        "annotations": _encodable(tool.annotations, f"{path}.annotations"),
    }


def _message(item: MessageItem, path: str, id: str) -> Json:
    given = [Part(type="input_text", text=item.content)] if isinstance(item.content, str) else item.content
    render = _output_part if item.role == "assistant" else _input_part
    parts = [render(part, f"{path}.content[{number}]") for number, part in enumerate(given)]
    status = item.status or "completed"
    return {"id": id, "type": "message", "role": item.role, "content": parts, "status": status}


def _input_part(part: Part, path: str) -> Json:
    if part.type == "input_image":
        return _image_part(part, path)
    return {"type": "input_text", "text": _text(part, path)}


def _image_part(part: Part, path: str) -> Json:
    """The URL is stored unchanged; an image that it does not contain is downloaded again by later requests."""
    if part.file_id is not None:
        param = f"{path}.file_id"
        raise UnsupportedField(f"{param}: files are not stored; send an image_url, such as a data URL.", param=param)
    if part.image_url is None:
        raise InvalidRequest(f"{path}.image_url: is required", param=f"{path}.image_url")
    return {"type": "input_image", "image_url": part.image_url, "detail": part.detail or "auto"}


def _output_part(part: Part, path: str) -> Json:
    """A part that the model wrote in an earlier turn."""
    if part.type == "refusal" and part.refusal is not None:
        return {"type": "refusal", "refusal": part.refusal}
    return {"type": "output_text", "text": _text(part, path), "annotations": [], "logprobs": []}


def _output(output: str | Sequence[Part], path: str) -> str | list[Json]:
    if isinstance(output, str):
        return output
    return [_input_part(part, f"{path}[{number}]") for number, part in enumerate(output)]


def _text(part: Part, path: str) -> str:
    if part.type not in TEXT_PARTS:
        raise UnsupportedField(f'{path}.type: parts of type "{part.type[:40]}" are not supported', param=f"{path}.type")
    if part.text is None:
        raise InvalidRequest(f"{path}.text: is required", param=f"{path}.text")
    return part.text


def _texts(parts: Sequence[Part], path: str, kind: str) -> list[Json]:
    for number, part in enumerate(parts):
        if part.text is None:
            raise InvalidRequest(f"{path}[{number}].text: is required", param=f"{path}[{number}].text")
    return [{"type": kind, "text": part.text} for part in parts]
