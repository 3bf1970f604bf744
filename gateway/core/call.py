"""What a dialect makes of a request, and what the core makes of that before it looks for a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from atelier.adapters import AdapterScale
from atelier.errors import InvalidRequest
from atelier.json_types import Json
from atelier.names import InstanceName, ModelName, find_name
from atelier.settings import Prompt
from atelier.settings.preset import Preset
from atelier.settings.settings_wire import sampling_message
from atelier.submission import (
    Constraint,
    Echo,
    OutputFormat,
    Tools,
    set_constraint,
    set_echo,
    set_output_format,
    set_scales,
    set_tools,
)
from gateway.core.effective_settings import Effective, default_preset, effective, find_preset, layers_of
from gateway.core.images import ImageSource, set_apart
from gateway.fleet.snapshot import Instance, Model, Snapshot
from protos import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages for the model's chat template: {role, content, ...} each. `images`: one for each image part."""

    messages: list[dict[str, Any]]
    images: Sequence[ImageSource] = ()

    @classmethod
    def of(cls, messages: Sequence[dict[str, Any]]) -> "Chat":
        """Of messages whose image parts have their sources with them."""
        return cls(*set_apart(messages))


def tool_call_entry(id: str | None, name: str, arguments: str) -> Json:
    """One of an assistant message's `tool_calls`. `arguments`: JSON."""
    entry: Json = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return entry if id is None else {"id": id, **entry}


def tool_message(id: str, name: str, content: str | list[Json]) -> Json:
    """The result of the tool call with this id."""
    return {"role": "tool", "tool_call_id": id, "name": name, "content": content}


@dataclass(frozen=True, slots=True)
class Text:
    """Text that the model continues as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids that the model continues."""

    ids: list[int]


@dataclass(frozen=True, slots=True)
class Infill:
    """Text before and after a gap that the model fills."""

    prefix: str
    suffix: str


PromptInput = Chat | Text | Tokens | Infill


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request in the core's terms. `settings` holds what the request sets, by setting name."""

    model: str  # as the client wrote it
    prompts: list[PromptInput]
    tools: Tools | None = None  # that the completion of a chat may call
    template_arguments: Mapping[str, Any] = field(default_factory=dict)  # what else a chat's template is given
    settings: Mapping[str, Any] = field(default_factory=dict)
    constraint: Constraint | None = None
    choices: int = 1  # for each prompt
    logprobs: int | None = None  # wanted for every token, with this many of the likeliest tokens
    echo: Echo | None = None  # the worker tells the prompt, which is then part of each choice's text
    prompt_progress: bool = False  # events of it are wanted
    max_tokens_is_bound: bool = False  # and not a wish: where the context has room for fewer, those are all
    priority: int | None = None  # the lower, the sooner it starts
    timeout: float | None = None  # seconds from the request's head to the answer's end
    draft_model: str | None = None  # that shall guess ahead, as the client wrote it
    lora: Sequence[AdapterScale] = ()  # none: the instance's own scales
    preset: str | None = None  # whose settings hold where the request is silent
    ttl: float | None = None  # seconds that a model which is loaded for this may be idle; negative: for ever
    load: Mapping[str, Any] = field(default_factory=dict)  # settings of a model which is loaded for this

    @property
    def images(self) -> Sequence[ImageSource]:
        """A chat is a call's only prompt."""
        prompt = self.prompts[0]
        return prompt.images if isinstance(prompt, Chat) else ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from: its id for logs, and whose share of a worker it uses."""

    request_id: str
    fairness_key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A call whose names are resolved. Its settings depend on the instance that answers."""

    call: Call
    origin: Origin
    target: ModelName | InstanceName
    model: Model
    preset: Preset | None = None
    default: Preset | None = None  # the model's
    images: Sequence[bytes] = ()  # of the call, once they are read

    @property
    def name(self) -> str:
        return told_name(self.target)

    @property
    def choices(self) -> int:
        """Of all prompts together."""
        return self.call.choices * len(self.call.prompts)

    def effective(self, instance: Instance | None) -> Effective:
        """The settings that hold when this instance answers."""
        return effective(layers_of(self.call.settings, self.preset, self.default, self.model, instance))


def make_plan(call: Call, origin: Origin, snapshot: Snapshot) -> Plan:
    """Resolve names; ModelNotFound, PresetNotFound, or InvalidRequest when that or a setting is wrong."""
    target, model = find_target(call.model, snapshot)
    if model.embedding:
        raise InvalidRequest(f'"{model.key}" makes embeddings; it does not generate text.', param="model")
    if call.images and not model.made_for_vision:
        path = call.images[0].path
        raise InvalidRequest(f'{path}: "{model.key}" does not see images; send text alone', param=path)
    preset = find_preset(call.preset, model, snapshot)
    plan = Plan(call, origin, target, model, preset, default_preset(model, snapshot))
    plan.effective(None)  # what is wrong with the request is told before anything is loaded for it
    return plan


def find_target(name: str, snapshot: Snapshot) -> tuple[ModelName | InstanceName, Model]:
    """What the client's words mean, and the model behind it; ModelNotFound."""
    target = find_name(name, snapshot.models, snapshot.instances)
    if isinstance(target, ModelName):
        return target, snapshot.models[target.key]
    return target, snapshot.model_of(snapshot.instances[target.id])


def told_name(target: ModelName | InstanceName) -> str:
    """What the reply calls the model: the key, or the instance that the request named."""
    return target.key if isinstance(target, ModelName) else target.id


def _json(messages: list[dict[str, Any]]) -> bytes:
    try:
        return orjson.dumps(messages)
    except TypeError as error:  # a number of more than 64 bits among a tool call's arguments
        raise InvalidRequest(f"messages: {error}", param="messages") from None


def with_system_prompt(messages: list[dict[str, Any]], system_prompt: str | None) -> list[dict[str, Any]]:
    """A chat that has a system message of its own keeps to that."""
    if not system_prompt or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]


def output_format(prompting: Prompt) -> OutputFormat:
    return OutputFormat(prompting.tool_call_format, prompting.reasoning_start, prompting.reasoning_end)


def set_chat(chat: pb.Chat, plan: Plan, messages: list[dict[str, Any]], prompting: Prompt) -> None:
    """The messages, and all that the plan's call says of how they become a prompt."""
    chat.messages_json = _json(with_system_prompt(messages, prompting.system_prompt))
    if prompting.chat_template is not None:
        chat.template = prompting.chat_template
    set_tools(chat, plan.call.tools)
    set_output_format(chat, output_format(prompting))
    if plan.call.template_arguments:
        chat.template_arguments_json = orjson.dumps(plan.call.template_arguments)
    chat.images.extend(plan.images)


def submit_message(plan: Plan, prompt: PromptInput, settings: Effective) -> pb.Submit:
    """The call as the worker takes it; its number and the instance are the connection's to fill in."""
    prompting = settings.prompt.build()
    submit = pb.Submit(
        request_id=plan.origin.request_id,
        sampling=sampling_message(settings.inference.build(), prompting.stop),
        choices=plan.call.choices,
        fairness_key=plan.origin.fairness_key,
        logprobs=plan.call.logprobs,
        prompt_progress=plan.call.prompt_progress or None,
        max_tokens_is_bound=plan.call.max_tokens_is_bound or None,
        priority=plan.call.priority,
    )
    match prompt:
        case Chat(messages):
            set_chat(submit.chat, plan, messages, prompting)
        case Text(text):
            submit.text = text
        case Tokens(ids):
            submit.tokens.ids.extend(ids)
        case Infill(prefix, suffix):
            submit.infill.prefix, submit.infill.suffix = prefix, suffix
    set_echo(submit, plan.call.echo)
    set_constraint(submit, plan.call.constraint)
    set_scales(submit, plan.call.lora)
    return submit
