"""What a server may send during a call: its progress, a request to a model (sampling), a question (elicitation)."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from mcp.client import ClientRequestContext
from mcp_types import (
    INTERNAL_ERROR,
    AudioContent,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    ImageContent,
    SamplingMessage,
    TextContent,
)

from atelier.errors import AtelierError, UnsupportedField
from atelier.generation_types import StopReason
from atelier.json_types import Json
from gateway.core.call import Account, Call, Chat, Origin
from gateway.core.events import Completion
from gateway.core.images import EncodedImage, ImageSource, content_of
from gateway.core.inference import InferenceCore
from gateway.core.mcp_server_config import ServerConfig
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline

LONGEST_MESSAGE = 500  # characters of a progress notification's message
STOP_REASONS = {StopReason.MAX_PREDICTED_TOKENS_REACHED: "maxTokens", StopReason.STOP_STRING_FOUND: "stopSequence"}

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Progress, total, and the server's message."""


class SamplingHandler(Protocol):
    """Completes a chat for a server. Raises AtelierError."""

    async def sample(self, server: ServerConfig, params: CreateMessageRequestParams) -> CreateMessageResult: ...


class ElicitationHandler(Protocol):
    """Asks the user of one call on behalf of its server. Raises AtelierError. Cancelled when the call ends."""

    def __call__(
        self, server: ServerConfig, params: ElicitRequestParams
    ) -> Coroutine[object, object, ElicitResult]: ...


class ProgressCallback:
    """Forwards progress, one notification at a time. Those that arrive meanwhile are dropped: a server may flood us."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._forwarding = False

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        if self._forwarding:
            return
        self._forwarding = True
        try:
            await self._on_progress(progress, total, message[:LONGEST_MESSAGE] if message is not None else None)
        finally:
            self._forwarding = False


class SamplingCallback:
    """Limits how many sampling requests of one connection run at a time. A callback of the SDK's client."""

    def __init__(self, server: ServerConfig, handler: SamplingHandler, limit: int) -> None:
        self._server = server
        self._handler = handler
        self._available = limit

    async def __call__(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | ErrorData:
        if not self._available:
            return ErrorData(code=INTERNAL_ERROR, message="Too many sampling requests at a time; try again later.")
        self._available -= 1
        try:
            return await self._handler.sample(self._server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)
        finally:
            self._available += 1


class ModelSampling:
    """Completes servers' chats with this server's models. A `SamplingHandler`.

    Their requests are queued with all others, in the fairness share of the server's owner.
    """

    def __init__(self, inference: InferenceCore) -> None:
        self._inference = inference

    async def sample(self, server: ServerConfig, params: CreateMessageRequestParams) -> CreateMessageResult:
        """Uses the model that the operator chose for this server; its model preferences are ignored."""
        assert server.sampling_model is not None
        call = sampling_call(server.sampling_model, params)
        account = Account(f"mcp-{uuid.uuid4().hex}")
        origin = Origin(account.request_id, server.owner or f"mcp:{server.label}")
        generation = await self._inference.start(call, origin, account)
        try:
            [completion] = await generation.collect()
        finally:
            generation.close()
        return sampling_result(completion, account.model)


def sampling_call(model: str, params: CreateMessageRequestParams) -> Call:
    """Raises InvalidRequest, UnsupportedField."""
    if params.tools:
        raise UnsupportedField("tools: not supported in a server's sampling requests.", param="tools")
    system: list[Json] = [{"role": "system", "content": params.system_prompt}] if params.system_prompt else []
    messages = [_chat_message(message, f"messages[{i}]") for i, message in enumerate(params.messages)]
    settings: Json = {"max_tokens": params.max_tokens}
    if params.temperature is not None:
        settings["temperature"] = params.temperature
    if params.stop_sequences:
        settings["stop"] = params.stop_sequences
    return Call(model=model, prompts=[Chat.of([*system, *messages])], settings=settings, max_tokens_is_bound=True)


def sampling_result(completion: Completion, model: str) -> CreateMessageResult:
    """Without the reasoning, for which MCP has no field."""
    return CreateMessageResult(
        role="assistant",
        content=TextContent(text=completion.text),
        model=model,
        stop_reason=STOP_REASONS.get(completion.finished.reason, "endTurn"),
    )


def _chat_message(message: SamplingMessage, path: str) -> Json:
    return {"role": message.role, "content": content_of(_content_parts(message, path))}


def _content_parts(message: SamplingMessage, path: str) -> Iterator[str | ImageSource]:
    for block in message.content_as_list:
        match block:
            case TextContent():
                yield block.text
            case ImageContent():
                yield EncodedImage(block.data, f"{path}.content")
            case AudioContent():
                raise UnsupportedField(f"{path}.content: audio is not supported.", param=path)
            case _:
                raise UnsupportedField(f"{path}.content: tool calls and results are not supported.", param=path)


class ElicitationCallback:
    """Routes a server's questions to the call that caused them. A callback of the SDK's client.

    One connection serves many users, so a question must reach the user of its own call only. The call's context
    identifies it where the SDK propagates that: always in protocol 2026-07-28; in earlier versions if the question
    arrived in the stream that answers the call. Otherwise the call is known only if it is the connection's only one.
    """

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._calls: list[_ElicitingCall] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        call = self._current_call()
        if call is None:
            return ElicitResult(action="decline")
        try:
            return await call.ask(self._server, params)
        except AtelierError as error:
            return ErrorData(code=INTERNAL_ERROR, message=error.message)

    @contextmanager
    def during(self, handler: ElicitationHandler | None, deadline: PausableDeadline) -> Iterator[None]:
        """One call, made inside by the current task. `handler`: None if its user cannot be asked."""
        call = _ElicitingCall(handler, deadline)
        self._calls.append(call)
        token = _CURRENT_CALL.set(call)
        try:
            yield
        finally:
            _CURRENT_CALL.reset(token)
            self._calls.remove(call)
            call.cancel_questions()

    def _current_call(self) -> "_ElicitingCall | None":
        call = _CURRENT_CALL.get()
        if call is None and len(self._calls) == 1:
            return self._calls[0]
        return call if call in self._calls else None


class _ElicitingCall:
    """A call in progress, and the questions that its server has open."""

    def __init__(self, handler: ElicitationHandler | None, deadline: PausableDeadline) -> None:
        self._handler = handler
        self._deadline = deadline
        self._questions: set[asyncio.Task[ElicitResult]] = set()

    async def ask(self, server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
        if self._handler is None:
            return ElicitResult(action="decline")
        task = asyncio.create_task(self._handler(server, params))
        self._questions.add(task)
        try:
            with self._deadline.paused():
                await asyncio.wait({task})
        finally:
            task.cancel()
            self._questions.discard(task)
        return ElicitResult(action="cancel") if task.cancelled() else task.result()

    def cancel_questions(self) -> None:
        """The SDK does not cancel questions that came outside the call's own stream."""
        for task in self._questions:
            task.cancel()


_CURRENT_CALL: ContextVar[_ElicitingCall | None] = ContextVar("mcp_call", default=None)
