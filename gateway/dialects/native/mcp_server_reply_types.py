"""The replies of the routes of the operator's MCP servers."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict


class ServerObject(TypedDict):
    label: str
    kind: Literal["command", "url"]
    state: Literal["open", "opening", "closed", "failed"]
    protocol: Annotated[
        str | None, Field(description="The version of MCP that is spoken with it; null where it is not open.")
    ]
    tools: Annotated[
        list[str] | None, Field(description="Those that models may use; null where they are not known yet.")
    ]
    allowed_tools: Annotated[list[str] | None, Field(description="As mcp.json has it; null: all.")]
    require_approval: Literal["always", "never"] | list[str]


class ServerList(TypedDict):
    servers: list[ServerObject]
    disabled: Annotated[list[str], Field(description="Labels of those that mcp.json has switched off.")]
    error: Annotated[
        str | None, Field(description="What is wrong with mcp.json; what it said before holds until it is right.")
    ]


class TestedTool(TypedDict):
    name: str
    description: str
    allowed: bool
    needs_approval: bool


class TestedServer(TypedDict):
    label: str
    protocol: str
    seconds: Annotated[float, Field(description="That it took, with the connection where there was none.")]
    tools: list[TestedTool]


class AnsweredElicitation(TypedDict):
    id: str
    action: Literal["accept", "decline", "cancel"]
