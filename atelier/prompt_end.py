"""How the prompt of a chat ends: where the assistant's next message begins, or in its last one, which is continued."""

from collections.abc import Sequence
from enum import Enum

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from protos import inference_pb2 as pb


class PromptEnd(Enum):
    """The values are the protobuf enum's."""

    NEW_MESSAGE = pb.NEW_MESSAGE  # the template's generation prompt
    CONTINUED_MESSAGE = pb.CONTINUED_MESSAGE  # the last message, without its end mark
    CLOSED_MESSAGE = pb.CLOSED_MESSAGE  # the last message with its end mark, and no generation prompt


def check_final_message(messages: Sequence[Json], param: str = "messages") -> None:
    """Raises InvalidRequest if the last message cannot be continued, whatever the template."""
    final = messages[-1] if messages else {}
    if final.get("role") != "assistant":
        raise InvalidRequest(f"{param}: the last one must be the assistant's, to be continued", param=param)
    if final.get("tool_calls"):
        raise InvalidRequest(
            f"{param}: the last one has tool calls and cannot be continued; send their results", param=param
        )
    content = final.get("content")
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        raise InvalidRequest(f"{param}: the last one has images and cannot be continued", param=param)


def end_after(messages: Sequence[Json], param: str = "messages") -> PromptEnd:
    """For dialects in which a last message of the assistant's is continued. Raises InvalidRequest if it cannot be."""
    if not messages or messages[-1].get("role") != "assistant":
        return PromptEnd.NEW_MESSAGE
    check_final_message(messages, param)
    return PromptEnd.CONTINUED_MESSAGE
