"""LM Studio's v1 chat to the core's call, and what came of it to LM Studio's objects. Pure."""

from atelier.errors import InvalidRequest
from atelier.generation_types import Statistics
from atelier.json_types import Json
from atelier.settings import TABLE
from atelier.submission import Tools
from gateway.core.call import Call, Chat
from gateway.core.images import ImageSource, image_within
from gateway.dialects.lmstudio.lmstudio_requests import Input, InputItem, V1ChatBody

SETTINGS = {row.facts.lmstudio: row.name for row in TABLE["inference"].values() if row.facts.lmstudio}


def v1_chat_call(body: V1ChatBody, messages: list[Json], tools: Tools | None = None) -> Call:
    values = {setting: getattr(body, field) for field, setting in SETTINGS.items()}
    return Call(
        model=body.model,
        prompts=[Chat.of(messages)],
        tools=tools,
        template_arguments=reasoning_arguments(body.reasoning),
        settings={name: value for name, value in values.items() if value is not None},
        prompt_progress=bool(body.stream),
        draft_model=body.draft_model,
        preset=body.preset,
        ttl=body.ttl,
        load={} if body.context_length is None else {"context_length": body.context_length},
    )


def reasoning_arguments(reasoning: str | None) -> Json:
    """What chat templates look for: some whether to think, others how much."""
    match reasoning:
        case None:
            return {}
        case "off":
            return {"enable_thinking": False}
        case "on":
            return {"enable_thinking": True}
        case effort:
            return {"enable_thinking": True, "reasoning_effort": effort}


def input_content(asked: Input) -> str | list[Json]:
    """What the user says and shows, as it is kept: items of type image hold their images."""
    if isinstance(asked, str):
        return asked
    items = [input_item(item, f"input[{number}]") for number, item in enumerate(asked)]
    if any(item["type"] == "image" for item in items):
        return items
    return "\n".join(item["content"] for item in items)


def input_item(item: InputItem, path: str) -> Json:
    name = "data_url" if item.type == "image" else "content"
    if (value := getattr(item, name)) is None:
        raise InvalidRequest(f"{path}.{name}: is required", param=f"{path}.{name}")
    return {"type": "image" if item.type == "image" else "text", name: value}


def kept_piece(item: Json, path: str) -> str | ImageSource:
    """Of content that is kept. `path`: of the item; "" for one of an earlier turn."""
    if item["type"] == "image":
        return image_within(item["data_url"], f"{path}.data_url" if path else "previous_response_id")
    text: str = item["content"]
    return text


def kept_message(message: Json) -> Json:
    """A message of an answer, with its images in the form in which `kept_piece` reads them."""
    content = message["content"]
    return message if isinstance(content, str) else {**message, "content": [_kept_part(part) for part in content]}


def _kept_part(part: Json) -> Json:
    if part["type"] == "text":
        return {"type": "text", "content": part["text"]}
    return {"type": "image", "data_url": f"data:;base64,{part['source'].base64}"}


def chat_stats(figures: Statistics, load_seconds: float | None) -> Json:
    """`load_seconds`: that the model took to load, where it was loaded for this."""
    values: Json = {
        "input_tokens": figures.prompt_tokens,
        "total_output_tokens": figures.predicted_tokens,
        "reasoning_output_tokens": figures.reasoning_tokens,
        "tokens_per_second": figures.tokens_per_second,
        "time_to_first_token_seconds": figures.time_to_first_token_seconds,
    }
    return values if load_seconds is None else {**values, "model_load_time_seconds": load_seconds}


def chat_result(instance_id: str, output: list[Json], stats: Json, response_id: str | None) -> Json:
    result: Json = {"model_instance_id": instance_id, "output": output, "stats": stats}
    return result if response_id is None else {**result, "response_id": response_id}
