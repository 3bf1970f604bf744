"""The tools that run a model: they generate, embed, rank and tokenize text."""

import json
from collections.abc import Sequence
from dataclasses import replace

from atelier.errors import InvalidRequest
from atelier.names import InstanceName, ModelName
from atelier.prompt_end import PromptEnd, check_final_message
from atelier.submission import JsonSchema
from gateway.core.call import Call, Chat, EmbedCall, PromptInput, RerankCall, Text, TokenizeCall
from gateway.core.events import Completion, CompletionDraft, Delta, Event, Reasoning
from gateway.core.generation import Generation
from gateway.core.load_progress import followed
from gateway.core.routing import on_its_way
from gateway.dialects.mcp.tool_definition import Caller, ToolServices
from gateway.dialects.mcp.tool_schemas import (
    ChatInput,
    CompleteInput,
    EmbedInput,
    Generated,
    GenerateInput,
    Ranked,
    Ranking,
    RerankInput,
    TokenizeInput,
    TokenPiece,
    TokenPieces,
    Usage,
    Vectors,
)
from gateway.dialects.openai.chat_prompt import chat_messages
from gateway.dialects.openai.embeddings_and_tokens import best_first, errors_named, piece_text
from gateway.dialects.openai.openai_replies import finish_reason
from gateway.dialects.openai.openai_requests import Message
from gateway.fleet.snapshot import Snapshot


async def chat(services: ToolServices, caller: Caller, arguments: ChatInput) -> Generated:
    return await _generate(services, caller, chat_call(arguments))


async def complete(services: ToolServices, caller: Caller, arguments: CompleteInput) -> Generated:
    return await _generate(services, caller, call_of(arguments, Text(arguments.prompt)))


def chat_call(arguments: ChatInput) -> Call:
    messages = chat_messages(messages_of(arguments))
    call = call_of(arguments, Chat.of(messages))
    if not arguments.continue_final_message:
        return call
    check_final_message(messages)
    return replace(call, prompt_end=PromptEnd.CONTINUED_MESSAGE)


def messages_of(arguments: ChatInput) -> list[Message]:
    if (arguments.messages is None) == (arguments.prompt is None):
        raise InvalidRequest("Give either messages or a prompt.", param="messages")
    if arguments.messages is None:
        return [Message(role="user", content=arguments.prompt)]
    return [Message(role=turn.role, content=turn.content) for turn in arguments.messages]


def call_of(arguments: GenerateInput, prompt: PromptInput) -> Call:
    schema = arguments.json_schema
    return Call(
        model=arguments.model,
        prompts=[prompt],
        settings=arguments.settings.model_dump(exclude_none=True) if arguments.settings else {},
        constraint=JsonSchema(json.dumps(schema)) if schema is not None else None,
        preset=arguments.preset,
    )


async def _generate(services: ToolServices, caller: Caller, call: Call) -> Generated:
    generation = await services.inference.admit(call, caller.origin, caller.account)
    try:
        if caller.wants_progress and generation.must_load():
            target = generation.plan.target
            await followed(
                generation.find(), lambda snapshot: load_progress(target, snapshot), services.watcher, caller.report
            )
        await generation.begin()
        if caller.wants_progress:
            completion = await _reported_completion(generation, caller)
        else:
            (completion,) = await generation.collect()
        return generated(generation, completion)
    finally:
        generation.close()


async def _reported_completion(generation: Generation, caller: Caller) -> Completion:
    """Reports each new piece of text as progress."""
    draft, pieces = CompletionDraft(), 0
    while batch := await generation.next_batch():
        for event in batch:
            draft.add(event)
        new = [event for event in batch if isinstance(event, Delta | Reasoning)]
        pieces += len(new)
        if new:
            await caller.report(pieces, message=text_of(new) or None)
    return draft.completion(generation.ends[0], logprobs=False)


def load_progress(target: ModelName | InstanceName, snapshot: Snapshot) -> float:
    """Of the instance that the target's callers wait for. Below 1, the progress of the first piece of text."""
    instance = on_its_way(target, snapshot)
    return instance.load_progress if instance is not None else 0.0


def text_of(events: Sequence[Event]) -> str:
    """Of the answer, without its reasoning."""
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


async def embed(services: ToolServices, caller: Caller, arguments: EmbedInput) -> Vectors:
    call = EmbedCall(model=arguments.model, texts=arguments.texts, dimensions=arguments.dimensions)
    result = await services.unary.embed(call, caller.origin, caller.account)
    vectors = [list(vector) for vector in result.vectors]
    return Vectors(model=result.model, embeddings=vectors, prompt_tokens=result.prompt_tokens)


async def rerank(services: ToolServices, caller: Caller, arguments: RerankInput) -> Ranking:
    call = RerankCall(model=arguments.model, query=arguments.query, documents=arguments.documents)
    scores = await services.unary.rerank(call, caller.origin, caller.account)
    best = best_first(scores, arguments.top_n)
    results = [Ranked(index=index, relevance_score=scores.values[index]) for index in best]
    return Ranking(model=scores.model, results=results, prompt_tokens=scores.prompt_tokens)


async def tokenize(services: ToolServices, caller: Caller, arguments: TokenizeInput) -> TokenPieces:
    call = TokenizeCall(model=arguments.model, text=arguments.text, add_special=arguments.add_special)
    with errors_named("text"):
        result = await services.unary.tokenize(call, caller.origin, caller.account)
    pairs = zip(result.ids, result.pieces, strict=True)
    tokens = [TokenPiece(id=id, piece=piece_text(piece)) for id, piece in pairs]
    return TokenPieces(model=result.model, count=len(tokens), tokens=tokens)
