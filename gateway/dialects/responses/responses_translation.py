"""A body to the core's call. Pure."""

from collections.abc import Sequence

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_bytes
from atelier.submission import Constraint, JsonObject, JsonSchema
from gateway.core.call import Call, Chat
from gateway.dialects.body import requested_logprobs
from gateway.dialects.openai.chat_prompt import effort_arguments
from gateway.dialects.openai.openai_calls import SETTINGS
from gateway.dialects.responses.hosted_call_messages import ServedCalls
from gateway.dialects.responses.item_messages import chat_messages
from gateway.dialects.responses.responses_requests import ResponseBody, TextFormat
from gateway.dialects.responses.responses_tools import response_tools

LOGPROBS = "message.output_text.logprobs"  # in `include`
OVERFLOW = {"auto": "rollingWindow", "disabled": "stopAtLimit"}
REFUSED = {
    "conversation": "not supported; previous_response_id continues a conversation.",
    "prompt": "there are no prompts stored here; a preset can hold a system prompt.",
    "moderation": "nothing is moderated here; leave it out.",
}


def refuse_contradictions(body: ResponseBody) -> None:
    for name, reason in REFUSED.items():
        if getattr(body, name) is not None:
            raise UnsupportedField(f"{name}: {reason}", param=name)
    if body.background and body.store is False:
        raise InvalidRequest("store: a response in the background has to be stored", param="store")
    if body.background and body.stream:
        raise UnsupportedField("stream: not supported together with background; leave one out.", param="stream")


def response_call(
    body: ResponseBody, items: Sequence[Json], earlier: Sequence[Json] = (), served: ServedCalls | None = None
) -> Call:
    """`items`: of the request's own input. `earlier`: of the conversation that goes on, the oldest first.

    `served`: what is known of the calls of servers' tools in them.
    """
    served = served or ServedCalls()
    messages = chat_messages(body.instructions, [*earlier, *items], len(earlier), served)
    if not messages:
        raise InvalidRequest("input: there is nothing to answer", param="input")
    return Call(
        model=body.model,
        prompts=[Chat.of(messages)],
        tools=response_tools(body, served.toolset),
        template_arguments=effort_arguments(body.reasoning.effort if body.reasoning else None),
        settings=inference_settings(body),
        constraint=format_constraint(body.text.format if body.text else None),
        logprobs=requested_logprobs(LOGPROBS in (body.include or []), body.top_logprobs, f'"{LOGPROBS}" in include'),
        priority=body.priority,
        timeout=body.timeout,
        preset=body.preset,
        ttl=body.ttl,
    )


def inference_settings(body: ResponseBody) -> Json:
    """The settings that the body sets, by the table's names."""
    values = {setting: getattr(body, field, None) for field, setting in SETTINGS.items()}
    values["max_tokens"] = body.max_output_tokens
    if body.truncation is not None:
        values["context_overflow"] = OVERFLOW[body.truncation]
    return {name: value for name, value in values.items() if value is not None}


def format_constraint(asked: TextFormat | None) -> Constraint | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return JsonObject()
    if asked.schema_ is None:
        raise InvalidRequest("text.format.schema: is required", param="text.format.schema")
    return JsonSchema(json_bytes(asked.schema_, "text.format.schema").decode(), asked.strict)
