"""The tools that generate text."""

import json
from collections.abc import Sequence

from atelier.errors import InvalidRequest
from atelier.names import InstanceName, ModelName
from atelier.submission import JsonSchema
from gateway.core.call import Call, Chat, PromptInput, Text
from gateway.core.completion_draft import Draft
from gateway.core.events import Completion, Delta, Event, Reasoning
from gateway.core.generation import Generation
from gateway.core.load_progress import followed
from gateway.core.routing import on_its_way
from gateway.dialects.mcp.tool_definition import Caller, Core
from gateway.dialects.mcp.tool_inputs import ChatInput, CompleteInput, GenerateInput
from gateway.dialects.mcp.tool_outputs import Generated, Usage
from gateway.dialects.openai.openai_messages import chat_messages
from gateway.dialects.openai.openai_requests import Message
from gateway.dialects.openai.openai_translation import finish_reason
from gateway.fleet.snapshot import Snapshot


async def chat(core: Core, caller: Caller, asked: ChatInput) -> Generated:
    return await _generate(core, caller, call_of(asked, Chat.of(chat_messages(messages_of(asked)))))


async def complete(core: Core, caller: Caller, asked: CompleteInput) -> Generated:
    return await _generate(core, caller, call_of(asked, Text(asked.prompt)))


def messages_of(asked: ChatInput) -> list[Message]:
    if (asked.messages is None) == (asked.prompt is None):
        raise InvalidRequest("Give either messages or a prompt.", param="messages")
    if asked.messages is None:
        return [Message(role="user", content=asked.prompt)]
    return [Message(role=turn.role, content=turn.content) for turn in asked.messages]


def call_of(asked: GenerateInput, prompt: PromptInput) -> Call:
    return Call(
        model=asked.model,
        prompts=[prompt],
        settings=asked.settings.model_dump(exclude_none=True) if asked.settings else {},
        constraint=JsonSchema(json.dumps(asked.json_schema)) if asked.json_schema is not None else None,
        preset=asked.preset,
    )


async def _generate(core: Core, caller: Caller, call: Call) -> Generated:
    generation = await core.inference.admit(call, caller.origin, caller.account)
    try:
        if caller.wants_progress and generation.must_load():
            target = generation.plan.target
            await followed(
                generation.find(), lambda snapshot: load_progress(target, snapshot), core.watcher, caller.report
            )
        await generation.begin()
        if caller.wants_progress:
            completion = await _told(generation, caller)
        else:
            (completion,) = await generation.collect()
        return generated(generation, completion)
    finally:
        generation.close()


async def _told(generation: Generation, caller: Caller) -> Completion:
    """The completion, of which the caller has heard each piece."""
    draft, pieces = Draft(), 0
    while batch := await generation.next_batch():
        for event in batch:
            draft.add(event)
        new = [event for event in batch if isinstance(event, Delta | Reasoning)]
        pieces += len(new)
        if new:
            await caller.report(pieces, message=text_of(new) or None)
    return draft.completion(generation.ends[0], logprobs=False)


def load_progress(target: ModelName | InstanceName, snapshot: Snapshot) -> float:
    """Of the instance that the target's callers wait for; less than the first piece of text."""
    instance = on_its_way(target, snapshot)
    return instance.load_progress if instance is not None else 0.0


def text_of(events: Sequence[Event]) -> str:
    """Of the answer; what the model thinks is told by its progress alone."""
    return "".join(event.text for event in events if isinstance(event, Delta))


def generated(generation: Generation, completion: Completion) -> Generated:
    return Generated(
        model=generation.plan.name,
        instance=generation.instance.id,
        text=completion.text,
        reasoning=completion.reasoning or None,
        finish_reason="length" if finish_reason(completion.finished.reason) == "length" else "stop",
        usage=Usage(
            prompt_tokens=generation.prompt_tokens,
            cached_tokens=generation.cached_tokens,
            completion_tokens=generation.completion_tokens,
        ),
        unenforced=list(generation.unenforced),
        dropped_messages=generation.dropped.messages,
    )
