"""The channel that runs a prediction, and its messages."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic.alias_generators import to_camel

from atelier.generation_types import Finished, Statistics, StopReason, ToolCallPiece
from atelier.json_types import Json
from atelier.prompt_end import PromptEnd
from gateway.core.call import Call, PromptInput, Text
from gateway.core.call_plan import find_target
from gateway.core.events import Delta, Event, PromptProgress, Reasoning, ToolCallDelta
from gateway.core.generation import Generation
from gateway.core.inference import InferenceCore
from gateway.dialects.lmstudio import lmstudio_v0
from gateway.dialects.lmstudio_sdk.sdk_config import (
    config_fields,
    is_completion,
    load_fields,
    prediction_config,
    prediction_fields,
)
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Heartbeat
from gateway.dialects.lmstudio_sdk.sdk_frames import History, PredictParameter
from gateway.dialects.lmstudio_sdk.sdk_history import THINK, THOUGHT, chat_of, completion_text
from gateway.dialects.lmstudio_sdk.sdk_models import instance_info, model_info, requested_name
from gateway.fleet.snapshot import Instance
from gateway.fleet.watcher import Watcher
from gateway.tools.loop.toolset import read_arguments

LOCAL_PRESET = "@local:"  # prefix of the identifiers in preset files

# Statistics of LM Studio's v0 whose name in the SDK is more than a change of case; None: not part of the SDK's.
STATS_NAMES = {
    "time_to_first_token": "timeToFirstTokenSec",
    "draft_model": "usedDraftModelKey",
    "generation_time": None,
    "cached_tokens_count": None,
}


class PredictChannel:
    def __init__(self, inference: InferenceCore, watcher: Watcher) -> None:
        self._inference = inference
        self._watcher = watcher

    async def predict(self, parameter: PredictParameter, channel: Channel) -> None:
        """One completion. If the client cancels, the result is what was generated until then."""
        name = requested_name(parameter.model_specifier, self._watcher.known(), channel.domain)
        channel.requested.model = name
        call = predict_call(parameter, name)
        channel.requested.preset = call.preset or ""
        generation: Generation | None = None
        try:
            async with Heartbeat(channel, progress_message(0.0)) as heartbeat:
                generation = await self._inference.start(call, channel.origin, channel.account)
                fragments = Fragments(structured=call.constraint is not None)
                while batch := await generation.next_batch():
                    for message in fragments.messages(batch, generation.generated_tokens):
                        await heartbeat.send(message)
            end = generation.ends[0]
        except asyncio.CancelledError:
            if not channel.absorb_cancel():
                raise
            end = stopped(*(generation.prompt_tokens, generation.generated_tokens) if generation else (0, 0))
        finally:
            if generation is not None:
                generation.close()
        await channel.finish(self._success(name, parameter, generation, end, channel))

    def _success(
        self, name: str, parameter: PredictParameter, generation: Generation | None, end: Finished, channel: Channel
    ) -> Json:
        if generation is None:  # cancelled before a worker accepted it
            _, model = find_target(name, self._watcher.known())
            instance, settings = None, None
        else:
            model, instance, settings = generation.plan.model, generation.instance, generation.settings
        return {
            "type": "success",
            "stats": stats(end, instance, channel.account.seconds()),
            "modelInfo": instance_info(instance, model) if instance else model_info(model),
            "loadModelConfig": load_fields(instance, model) if instance else {"fields": []},
            "predictionConfig": prediction_fields(settings, config_fields(parameter.prediction_config_stack)),
        }


def predict_call(parameter: PredictParameter, name: str) -> Call:
    """Raises InvalidRequest, UnsupportedField."""
    stack = parameter.prediction_config_stack
    config = prediction_config(stack)
    completion = is_completion(stack)
    prompt, end = prompt_of(parameter.history, completion=completion)
    preset = parameter.fuzzy_preset_identifier
    return Call(
        model=name,
        prompts=[prompt],
        prompt_end=end,
        tools=None if completion else config.tools,
        settings=config.settings,
        constraint=config.constraint,
        prompt_progress=True,
        draft_model=config.draft_model,
        preset=preset.removeprefix(LOCAL_PRESET) if preset else None,
    )


def prompt_of(history: History, *, completion: bool) -> tuple[PromptInput, PromptEnd]:
    return (Text(completion_text(history)), PromptEnd.NEW_MESSAGE) if completion else chat_of(history)


@dataclass(slots=True)
class OpenCall:
    """A tool call that is being generated."""

    index: int
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class Fragments:
    """A prediction's events as channel messages. Owned by its task; keeps the reasoning and the call that are open.

    Reasoning is enclosed in tags, since a client joins all fragments into one text and sends that back in its
    next prompt. A structured reply omits reasoning, because there the text has to be JSON.
    """

    def __init__(self, *, structured: bool) -> None:
        self._structured = structured
        self._reasoning_open = False
        self._call: OpenCall | None = None
        self._tokens = 0

    def messages(self, batch: list[Event], tokens: int) -> list[Json]:
        """`tokens`: generated so far. Those since the last call are counted with the first fragment."""
        messages = [message for event in batch for message in self._render(event)]
        first = next((message["fragment"] for message in messages if message["type"] == "fragment"), None)
        if first is not None:
            first["tokensCount"] = tokens - self._tokens
            self._tokens = tokens
        return messages

    def _render(self, event: Event) -> Iterator[Json]:
        match event:
            case PromptProgress():
                yield progress_message(event.done_tokens / event.prompt_tokens if event.prompt_tokens else 1.0)
            case Reasoning(_, text):
                yield from self._reasoning(text)
            case Delta(_, text):
                yield from self._end_reasoning()
                if text:
                    yield fragment(text)
            case ToolCallDelta(_, piece):
                yield from self._end_reasoning()
                yield from self._tool_call(piece)
            case Finished():
                yield from self._end_reasoning()
                yield from self._end_call()

    def _reasoning(self, text: str) -> Iterator[Json]:
        if self._structured:
            return
        if not self._reasoning_open:
            self._reasoning_open = True
            yield fragment(THINK, "reasoningStartTag")
        yield fragment(text, "reasoning")

    def _end_reasoning(self) -> Iterator[Json]:
        if self._reasoning_open:
            self._reasoning_open = False
            yield fragment(THOUGHT, "reasoningEndTag")

    def _tool_call(self, piece: ToolCallPiece) -> Iterator[Json]:
        if self._call is None or self._call.index != piece.index:
            yield from self._end_call()
            self._call = OpenCall(piece.index, piece.id, piece.name)
            yield {"type": "toolCallGenerationStart", "toolCallId": piece.id}
            yield {"type": "toolCallGenerationNameReceived", "name": piece.name}
        if piece.arguments:
            self._call.arguments.append(piece.arguments)
            yield {"type": "toolCallGenerationArgumentFragmentGenerated", "content": piece.arguments}

    def _end_call(self) -> Iterator[Json]:
        call, self._call = self._call, None
        if call is None:
            return
        raw = "".join(call.arguments)
        if (arguments := read_arguments(raw)) is not None:
            request = {"id": call.id, "type": "function", "name": call.name, "arguments": arguments}
            yield {"type": "toolCallGenerationEnd", "toolCallRequest": request}
        else:  # the completion ended within the arguments
            error = {"title": f"The call of {call.name} is incomplete."}
            yield {"type": "toolCallGenerationFailed", "error": error, "rawContent": raw}


def fragment(content: str, kind: str = "none") -> Json:
    structural = kind.endswith("Tag")
    facts = {"tokensCount": 0, "containsDrafted": False, "reasoningType": kind, "isStructural": structural}
    return {"type": "fragment", "fragment": {"content": content, **facts}}


def progress_message(progress: float) -> Json:
    """`progress`: of the prompt, from 0 to 1."""
    return {"type": "promptProcessingProgress", "progress": progress}


def stats(finished: Finished, instance: Instance | None, seconds: float) -> Json:
    """`instance`: None if the prediction was cancelled before a worker accepted it."""
    figures = lmstudio_v0.stats(finished, instance or Instance(id="", model_key=""), seconds)
    return {name: value for key, value in figures.items() if (name := STATS_NAMES.get(key, to_camel(key)))}


def stopped(prompt_tokens: int, predicted_tokens: int) -> Finished:
    """The end of a prediction that its client cancelled, for which the worker sends no event."""
    figures = Statistics(prompt_tokens=prompt_tokens, predicted_tokens=predicted_tokens)
    return Finished(0, StopReason.USER_STOPPED, None, figures)
