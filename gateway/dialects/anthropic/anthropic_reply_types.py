"""The replies of Anthropic's routes."""

from typing import Any, Literal

from pydantic import RootModel

from gateway.dialects.documented import KEY, MODEL, Documented, Reply

HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


class SaidText(Reply):
    type: Literal["text"]
    text: str


class SaidThinking(Reply):
    type: Literal["thinking"]
    thinking: str
    signature: str


class SaidToolUse(Reply):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


Block = SaidText | SaidThinking | SaidToolUse
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class OutputTokensDetails(Reply):
    thinking_tokens: int


class MessageUsage(Reply):
    """Of a prompt's tokens, those that were in the cache are told apart."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails | None = None


class SaidMessage(Reply):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageStart(Reply):
    type: Literal["message_start"]
    message: SaidMessage


class BlockStart(Reply):
    type: Literal["content_block_start"]
    index: int
    content_block: Block


class TextDelta(Reply):
    type: Literal["text_delta"]
    text: str


class ThinkingDelta(Reply):
    type: Literal["thinking_delta"]
    thinking: str


class SignatureDelta(Reply):
    type: Literal["signature_delta"]
    signature: str


class InputDelta(Reply):
    type: Literal["input_json_delta"]
    partial_json: str


class BlockDelta(Reply):
    type: Literal["content_block_delta"]
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockStop(Reply):
    type: Literal["content_block_stop"]
    index: int


class MessageEnd(Reply):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Reply):
    type: Literal["message_delta"]
    delta: MessageEnd
    usage: MessageUsage


class MessageStop(Reply):
    type: Literal["message_stop"]


class Ping(Reply):
    type: Literal["ping"]


class MessageEvent(RootModel[MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping]):
    """The data of one event, whose name is its type."""


class TokenCount(Reply):
    input_tokens: int


DOCUMENTED = {
    "POST /v1/messages": Documented(
        reply=SaidMessage,
        events=MessageEvent,
        request={**HI, "max_tokens": 32},
        example={
            "id": "msg_36f5caab42664dd9a75143ff346ac4db",
            "type": "message",
            "role": "assistant",
            "model": KEY,
            "content": [{"type": "text", "text": "Hello! How can I help you today?"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 28,
                "output_tokens": 9,
            },
        },
    ),
    "POST /v1/messages/count_tokens": Documented(reply=TokenCount, request=HI, example={"input_tokens": 31}),
}
