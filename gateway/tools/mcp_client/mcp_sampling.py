"""What an MCP server asks a model, answered by one of ours."""

import uuid
from collections.abc import Iterator

from mcp_types import (
    AudioContent,
    CreateMessageRequestParams,
    CreateMessageResult,
    ImageContent,
    SamplingMessage,
    TextContent,
)

from atelier.errors import UnsupportedField
from atelier.json_types import Json
from gateway.core.account import Account
from gateway.core.call import Call, Chat, Origin
from gateway.core.events import Completion, StopReason
from gateway.core.images import EncodedImage, ImageSource, content_of
from gateway.core.inference import Inference
from gateway.core.mcp_server import Server

STOPPED = {StopReason.MAX_PREDICTED_TOKENS_REACHED: "maxTokens", StopReason.STOP_STRING_FOUND: "stopSequence"}


class ModelSampler:
    """Its requests take their turns beside all others, as a share of the server's that asks."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def sample(self, server: Server, params: CreateMessageRequestParams) -> CreateMessageResult:
        """By the model that the operator chose for this server, whatever it prefers; AtelierError."""
        assert server.sampling_model is not None
        call = call_of(server.sampling_model, params)
        account = Account(f"mcp-{uuid.uuid4().hex}")
        generation = await self._inference.start(call, Origin(account.request_id, _share_of(server)), account)
        try:
            [completion] = await generation.collect()
        finally:
            generation.close()
        return result_of(completion, account.model)


def call_of(model: str, params: CreateMessageRequestParams) -> Call:
    """InvalidRequest, UnsupportedField."""
    if params.tools:
        raise UnsupportedField("tools: a server's requests to a model cannot have any here.", param="tools")
    system: list[Json] = [{"role": "system", "content": params.system_prompt}] if params.system_prompt else []
    messages = [_message(message, f"messages[{i}]") for i, message in enumerate(params.messages)]
    settings: Json = {"max_tokens": params.max_tokens}
    if params.temperature is not None:
        settings["temperature"] = params.temperature
    if params.stop_sequences:
        settings["stop"] = params.stop_sequences
    return Call(model=model, prompts=[Chat.of([*system, *messages])], settings=settings, max_tokens_is_bound=True)


def result_of(completion: Completion, model: str) -> CreateMessageResult:
    """Without its reasoning, for which MCP has no place."""
    return CreateMessageResult(
        role="assistant",
        content=TextContent(text=completion.text),
        model=model,
        stop_reason=STOPPED.get(completion.finished.reason, "endTurn"),
    )


def _message(message: SamplingMessage, path: str) -> Json:
    return {"role": message.role, "content": content_of(_pieces(message, path))}


def _pieces(message: SamplingMessage, path: str) -> Iterator[str | ImageSource]:
    for block in message.content_as_list:
        match block:
            case TextContent():
                yield block.text
            case ImageContent():
                yield EncodedImage(block.data, f"{path}.content")
            case AudioContent():
                raise UnsupportedField(f"{path}.content: models here do not hear.", param=path)
            case _:
                raise UnsupportedField(f"{path}.content: calls of tools cannot be sent to a model here.", param=path)


def _share_of(server: Server) -> str:
    return server.owner or f"mcp:{server.label}"
