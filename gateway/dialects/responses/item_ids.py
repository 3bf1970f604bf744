"""Ids of responses and their items. An item's id tells which response it is stored with."""

import re
import uuid

PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
}
ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})[io]\d{1,6}")


def new_response_id() -> str:
    return f"resp_{uuid.uuid4().hex}"


def input_item_id(response_id: str, kind: str, number: int) -> str:
    return f"{PREFIXES[kind]}_{response_id.removeprefix('resp_')}i{number}"


def output_item_id(response_id: str, kind: str, number: int) -> str:
    return f"{PREFIXES[kind]}_{response_id.removeprefix('resp_')}o{number}"


def response_of(item_id: str) -> str | None:
    """The id of the response that has this item; None when this server did not make the id."""
    found = ITEM_ID.fullmatch(item_id)
    return f"resp_{found[1]}" if found else None
