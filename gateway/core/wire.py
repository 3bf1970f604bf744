"""The core's types to a worker's protobuf, and its protobuf to the core's types. Pure."""

from collections.abc import Mapping, Sequence

import orjson

from atelier.generation_types import NOTHING_DROPPED, Dropped, Finished, Statistics, StopReason, ToolCallPiece
from atelier.json_types import Json, json_bytes
from atelier.prompt_end import PromptEnd
from atelier.settings import Prompt
from atelier.settings.groups import UNLIMITED
from atelier.settings.settings_table import sampling_message
from atelier.submission import OutputFormat, set_constraint, set_echo, set_output_format, set_scales, set_tools
from gateway.core.call import (
    Call,
    Chat,
    EmbedCall,
    Embeddings,
    Infill,
    Origin,
    PromptInput,
    RerankCall,
    Scores,
    Text,
    Tokenization,
    TokenizeCall,
    Tokens,
)
from gateway.core.call_plan import CallPlan, Effective
from gateway.core.events import TokenLogprob
from gateway.fleet.snapshot import Instance
from protos import inference_pb2 as pb

PLAIN_OUTPUT = OutputFormat()
STOP_REASONS = {int(reason): reason for reason in StopReason}


def submit_message(
    plan: CallPlan,
    prompt: PromptInput,
    settings: Effective,
    timeout: float | None = None,
    queue_timeout: float | None = None,
) -> pb.Submit:
    """One prompt of the call, without the call's number and the instance, which the connection fills in.

    `timeout`, `queue_timeout`: seconds left for the answer, and for the wait for a sequence. Durations, not times: the
    worker's clock may be another machine's.
    """
    call = plan.call
    prompting = settings.prompt.build()
    submit = pb.Submit(
        request_id=plan.origin.request_id,
        sampling=sampling_message(settings.inference.build(), prompting.stop),
        choices=call.choices,
        fairness_key=plan.origin.fairness_key,
        logprobs=call.logprobs,
        prompt_progress=call.prompt_progress or None,
        max_tokens_is_bound=call.max_tokens_is_bound or None,
        priority=call.priority,
        timeout_seconds=timeout,
        queue_timeout_seconds=queue_timeout,
    )
    match prompt:
        case Chat(messages):
            _set_chat(submit.chat, plan, messages, settings)
        case Text(text):
            submit.text = text
        case Tokens(ids):
            submit.tokens.ids.extend(ids)
        case Infill(prefix, suffix):
            submit.infill.prefix, submit.infill.suffix = prefix, suffix
    if call.echo is not None:
        set_echo(submit, call.echo)
    if call.constraint is not None:
        set_constraint(submit, call.constraint)
    if call.lora:
        set_scales(submit, call.lora)
    return submit


def _set_chat(chat: pb.Chat, plan: CallPlan, messages: list[Json], settings: Effective) -> None:
    """The messages, and how the plan's call makes a prompt of them."""
    prompting = settings.prompt.build()
    chat.messages_json = json_bytes(with_system_prompt(messages, prompting.system_prompt), "messages")
    if prompting.chat_template is not None:
        chat.template = prompting.chat_template
    if plan.call.prompt_end is not PromptEnd.NEW_MESSAGE:
        chat.end = plan.call.prompt_end.value
    if plan.call.tools is not None:
        set_tools(chat, plan.call.tools)
    if (output := output_format(prompting)) != PLAIN_OUTPUT:
        set_output_format(chat, output)
    if arguments := template_arguments(plan.call, settings.inference.build().reasoning_budget):
        chat.template_arguments_json = orjson.dumps(arguments)
    chat.images.extend(plan.images)
    chat.parse_special = prompting.parse_special


def template_arguments(call: Call, budget: int | None) -> Mapping[str, object]:
    """The call's own take precedence over those for the reasoning's budget, which some templates know."""
    if budget is None or budget == UNLIMITED:
        return call.template_arguments
    switch = {} if budget else {"enable_thinking": False}
    return {"thinking_budget": budget, **switch, **call.template_arguments}


def with_system_prompt(messages: list[Json], system_prompt: str | None) -> list[Json]:
    """The messages after the setting's system prompt, which a system message among them replaces."""
    if not system_prompt or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]


def output_format(prompting: Prompt) -> OutputFormat:
    return OutputFormat(
        prompting.tool_call_format,
        prompting.reasoning_start,
        prompting.reasoning_end,
        prompting.reasoning_budget_message,
    )


def embed_message(call: EmbedCall, origin: Origin) -> pb.EmbedRequest:
    inputs = [pb.Tokens(ids=ids) for ids in call.tokens]
    return pb.EmbedRequest(request_id=origin.request_id, texts=call.texts, inputs=inputs, dimensions=call.dimensions)


def read_embeddings(reply: pb.EmbedReply, model: str) -> Embeddings:
    return Embeddings(model, [each.values for each in reply.embeddings], reply.prompt_tokens)


def rerank_message(call: RerankCall, origin: Origin) -> pb.RerankRequest:
    return pb.RerankRequest(request_id=origin.request_id, query=call.query, documents=call.documents)


def read_scores(reply: pb.RerankReply, model: str) -> Scores:
    return Scores(model, reply.scores, reply.prompt_tokens)


def tokenize_message(call: TokenizeCall, origin: Origin) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(
        request_id=origin.request_id,
        text=call.text,
        add_special=call.add_special,
        parse_special=call.parse_special,
    )


def read_tokens(reply: pb.TokenizeReply, model: str) -> Tokenization:
    return Tokenization(model, reply.ids, reply.pieces)


def detokenize_message(ids: Sequence[int], origin: Origin) -> pb.DetokenizeRequest:
    return pb.DetokenizeRequest(request_id=origin.request_id, tokens=pb.Tokens(ids=ids))


def chat_tokens_message(plan: CallPlan, instance: Instance | None) -> pb.TokenizeRequest:
    message = pb.TokenizeRequest(request_id=plan.origin.request_id)
    _set_one_chat(message.chat, plan, instance)
    return message


def template_message(plan: CallPlan, instance: Instance | None) -> pb.ApplyTemplateRequest:
    message = pb.ApplyTemplateRequest(request_id=plan.origin.request_id)
    _set_one_chat(message.chat, plan, instance)
    return message


def _set_one_chat(chat: pb.Chat, plan: CallPlan, instance: Instance | None) -> None:
    """The plan's only chat, with the settings that apply on this instance."""
    (prompt,) = plan.call.prompts
    assert isinstance(prompt, Chat)
    _set_chat(chat, plan, prompt.messages, plan.effective(instance))


def read_dropped(message: pb.Accepted) -> Dropped:
    if not (message.dropped_messages or message.dropped_tokens):
        return NOTHING_DROPPED
    return Dropped(message.dropped_messages, message.dropped_tokens)


def read_tool_call(message: pb.ToolCallPiece) -> ToolCallPiece:
    return ToolCallPiece(message.index, message.id, message.name, message.arguments)


def read_finished(message: pb.Finished, choice: int) -> Finished:
    reason = STOP_REASONS.get(message.reason, StopReason.UNSPECIFIED)  # a newer worker may have more
    stop_string = message.stop_string if message.HasField("stop_string") else None
    return Finished(choice, reason, stop_string, read_statistics(message.statistics))


def read_statistics(message: pb.Statistics) -> Statistics:
    return Statistics(*(getattr(message, name) for name in Statistics.__slots__))


def read_logprobs(message: pb.Delta) -> list[TokenLogprob]:
    """Those of the delta's tokens: the token that ends a completion has one, but is no part of the text."""
    return [_read_logprob(each) for each in message.logprobs[: message.tokens]]


def read_echoed_logprobs(message: pb.Echoed) -> list[TokenLogprob]:
    return list(map(_read_logprob, message.logprobs))


def _read_logprob(message: pb.TokenLogprob) -> TokenLogprob:
    logprob = message.logprob if message.HasField("logprob") else None
    return TokenLogprob(message.piece, logprob, tuple(map(_read_logprob, message.top)))
