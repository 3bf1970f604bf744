"""The same request in every dialect, whole and streamed, with the real model: one answer in eight formats."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anthropic
import httpx
import lmstudio
import ollama
import openai
import pytest
from PIL import Image

from atelier.json_types import Json
from registry.starter_model import FOLDER
from tests.support.command.server_process import MODEL, Server, put_starter, serving
from tests.support.models.pictures import encoded
from tests.support.models.tiny_projector import write_tiny_projector

pytestmark = pytest.mark.system

TOKENS = 16
SEED = 7
HELLO = [{"role": "user", "content": "Name three towns by the sea."}]
WIDTH = 576  # of SmolLM2-135M's embeddings


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory, starter_model: Path) -> Iterator[Server]:
    """A server whose model has a projector with random weights: its text is nonsense, but depends on the image."""
    home = tmp_path_factory.mktemp("seeing") / "home"
    put_starter(home, starter_model)
    write_tiny_projector(home / FOLDER / "mmproj-F16.gguf", WIDTH)
    with serving(home) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    reason: str | None  # the stop reason, in the dialect's terms
    tokens: tuple[int, int] | None  # of the prompt and of the answer, where the dialect reports them
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    path: str
    body: Json
    whole: Callable[[Json], Answer]
    streamed: Callable[[list[Json]], Answer]
    with_usage: Json  # further fields of a streamed request


def openai_usage(reply: Json) -> tuple[int, int]:
    return reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]


def chat_whole(reply: Json) -> Answer:
    (choice,) = reply["choices"]
    message = choice["message"]
    reasoning = message.get("reasoning_content", "")
    return Answer(message["content"], choice["finish_reason"], openai_usage(reply), reasoning)


def chat_streamed(chunks: list[Json]) -> Answer:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    reasoning = "".join(choice["delta"].get("reasoning_content", "") for choice in choices)
    return Answer(text, choices[-1]["finish_reason"], openai_usage(chunks[-1]), reasoning)


def text_whole(reply: Json) -> Answer:
    (choice,) = reply["choices"]
    return Answer(choice["text"], choice["finish_reason"], openai_usage(reply))


def text_streamed(chunks: list[Json]) -> Answer:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return Answer("".join(choice["text"] for choice in choices), choices[-1]["finish_reason"], openai_usage(chunks[-1]))


def response_whole(reply: Json) -> Answer:
    parts = [part for item in reply["output"] for part in item["content"]]
    text, reasoning = (
        "".join(part["text"] for part in parts if part["type"] == kind) for kind in ("output_text", "reasoning_text")
    )
    usage = reply["usage"]
    return Answer(text, reply["status"], (usage["input_tokens"], usage["output_tokens"]), reasoning)


def response_streamed(events: list[Json]) -> Answer:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text, reasoning = (
        "".join(event["delta"] for event in events if event["type"] == f"response.{kind}.delta")
        for kind in ("output_text", "reasoning_text")
    )
    whole = response_whole(events[-1]["response"])
    assert (whole.text, whole.reasoning) == (text, reasoning)
    return whole


def message_whole(reply: Json) -> Answer:
    usage = reply["usage"]
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    text, thinking = ("".join(block.get(kind, "") for block in reply["content"]) for kind in ("text", "thinking"))
    return Answer(text, reply["stop_reason"], (prompt, usage["output_tokens"]), thinking)


def message_streamed(events: list[Json]) -> Answer:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    text, thinking = ("".join(delta.get(kind, "") for delta in deltas) for kind in ("text", "thinking"))
    end = next(event for event in events if event["type"] == "message_delta")
    assert events[-1] == {"type": "message_stop"}
    prompt = end["usage"]["input_tokens"] + end["usage"]["cache_read_input_tokens"]
    return Answer(text, end["delta"]["stop_reason"], (prompt, end["usage"]["output_tokens"]), thinking)


def ollama_said(reply: Json) -> tuple[str, str]:
    """Text and thinking."""
    if "message" in reply:
        return reply["message"]["content"], reply["message"].get("thinking", "")
    return reply["response"], reply.get("thinking", "")


def ollama_whole(reply: Json) -> Answer:
    text, thinking = ollama_said(reply)
    return Answer(text, reply["done_reason"], (reply["prompt_eval_count"], reply["eval_count"]), thinking)


def ollama_streamed(lines: list[Json]) -> Answer:
    assert [line["done"] for line in lines] == [*[False] * (len(lines) - 1), True]
    text, thinking = map("".join, zip(*map(ollama_said, lines), strict=True))
    last = lines[-1]
    return Answer(text, last["done_reason"], (last["prompt_eval_count"], last["eval_count"]), thinking)


def v1_whole(reply: Json) -> Answer:
    said = {item["type"]: item["content"] for item in reply["output"]}
    stats = reply["stats"]
    tokens = stats["input_tokens"], stats["total_output_tokens"]
    return Answer(said["message"], None, tokens, said.get("reasoning", ""))


def v1_streamed(events: list[Json]) -> Answer:
    text, reasoning = (
        "".join(event["content"] for event in events if event["type"] == f"{kind}.delta")
        for kind in ("message", "reasoning")
    )
    whole = v1_whole(events[-1]["result"])
    assert (whole.text, whole.reasoning) == (text, reasoning)
    return whole


SAMPLED = {"model": MODEL, "temperature": 1.0, "top_p": 0.9, "seed": SEED}
OPTIONS = {"temperature": 1.0, "top_p": 0.9, "seed": SEED, "num_predict": TOKENS}
USAGE = {"stream_options": {"include_usage": True}}
GREEDY = {"model": MODEL, "temperature": 0}  # where the dialect has no seed

DIALECTS = {
    "chat": Dialect(
        "/v1/chat/completions", {**SAMPLED, "messages": HELLO, "max_tokens": TOKENS}, chat_whole, chat_streamed, USAGE
    ),
    "chat-stop": Dialect(
        "/v1/chat/completions",
        {**GREEDY, "messages": HELLO, "max_tokens": 40, "stop": [".", ","]},
        chat_whole,
        chat_streamed,
        USAGE,
    ),
    "completion": Dialect(
        "/v1/completions", {**SAMPLED, "prompt": "The sea", "max_tokens": TOKENS}, text_whole, text_streamed, USAGE
    ),
    "responses": Dialect(
        "/v1/responses",
        {**SAMPLED, "input": HELLO, "max_output_tokens": TOKENS},
        response_whole,
        response_streamed,
        {},
    ),
    "messages": Dialect(
        "/v1/messages", {**GREEDY, "messages": HELLO, "max_tokens": TOKENS}, message_whole, message_streamed, {}
    ),
    "ollama-chat": Dialect(
        "/api/chat", {"model": MODEL, "messages": HELLO, "options": OPTIONS}, ollama_whole, ollama_streamed, {}
    ),
    "ollama-generate": Dialect(
        "/api/generate", {"model": MODEL, "prompt": "Hi", "options": OPTIONS}, ollama_whole, ollama_streamed, {}
    ),
    "v0-chat": Dialect(
        "/api/v0/chat/completions",
        {**SAMPLED, "messages": HELLO, "max_tokens": TOKENS},
        chat_whole,
        chat_streamed,
        USAGE,
    ),
    "v0-completion": Dialect(
        "/api/v0/completions", {**SAMPLED, "prompt": "The sea", "max_tokens": TOKENS}, text_whole, text_streamed, USAGE
    ),
    "v1-chat": Dialect(
        "/api/v1/chat",
        {**GREEDY, "input": HELLO[0]["content"], "max_output_tokens": TOKENS, "store": False},
        v1_whole,
        v1_streamed,
        {},
    ),
}


def asked(server: Server, dialect: Dialect) -> Answer:
    reply = httpx.post(f"{server.url}{dialect.path}", json={**dialect.body, "stream": False}, timeout=60)
    assert reply.status_code == 200, reply.text
    return dialect.whole(reply.json())


def streamed_answer(server: Server, dialect: Dialect) -> Answer:
    body = {**dialect.body, **dialect.with_usage, "stream": True}
    with httpx.stream("POST", f"{server.url}{dialect.path}", json=body, timeout=60) as reply:
        assert reply.status_code == 200
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith(("data: ", "{"))]
    return dialect.streamed([json.loads(line) for line in lines if line != "[DONE]"])


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_and_a_whole_answer_agree(seeing: Server, name: str) -> None:
    whole = asked(seeing, DIALECTS[name])
    assert whole.text
    assert streamed_answer(seeing, DIALECTS[name]) == whole


def test_several_choices_agree(seeing: Server) -> None:
    body = {**SAMPLED, "messages": HELLO, "max_tokens": 8, "n": 3}
    url = f"{seeing.url}/v1/chat/completions"
    whole = httpx.post(url, json=body, timeout=60).json()["choices"]
    texts = [""] * 3
    with httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole]
    assert len(set(texts)) > 1


def test_every_dialect_gives_the_same_answer(seeing: Server) -> None:
    """For the same chat with the same settings and the same seed."""
    sampled = {asked(seeing, DIALECTS[name]).text for name in ("chat", "responses", "ollama-chat", "v0-chat")}
    greedy = {asked(seeing, DIALECTS[name]).text for name in ("messages", "v1-chat")}
    assert len(sampled) == 1
    assert len(greedy) == 1


PARIS = [{"role": "user", "content": "What is the capital of France?"}]
THOUGHT = "The user asks for the capital of {}."
SHOTS = "".join(
    f"<|im_start|>user\nWhat is the capital of {country}?<|im_end|>\n"
    f"<|im_start|>assistant\n<think> {THOUGHT.format(country)} </think> {capital}<|im_end|>\n"
    for country, capital in (("Norway", "Oslo"), ("Italy", "Rome"), ("Poland", "Warsaw"))
)
TURN = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
THINKING = {  # the model was not trained to reason: its template shows how, and opens the reasoning
    "chat_template": f"{SHOTS}{{% for message in messages %}}{TURN}{{% endfor %}}<|im_start|>assistant\n<think>",
    "reasoning_start": "<think>",
    "reasoning_end": "</think>",
}
PUZZLES: dict[str, Json] = {
    "chat": {"messages": PARIS, "temperature": 0},
    "responses": {"input": PARIS, "temperature": 0},
    "messages": {"messages": PARIS},
    "ollama-chat": {"messages": PARIS, "options": {"temperature": 0, "num_predict": TOKENS}},
    "ollama-generate": {"prompt": PARIS[0]["content"], "options": {"temperature": 0, "num_predict": TOKENS}},
    "v0-chat": {"messages": PARIS, "temperature": 0},
    "v1-chat": {"input": PARIS[0]["content"]},
}


@pytest.fixture
def thinking(seeing: Server) -> Iterator[Server]:
    """That server, while its model thinks before it answers; Ollama's dialect names no presets."""
    default = {"model": MODEL, "preset": "thinking"}
    with httpx.Client(base_url=seeing.url, timeout=60) as http:
        http.put("/api/v1/presets/thinking", json={"prompt": THINKING}).raise_for_status()
        http.post("/api/v1/models/default-preset", json=default).raise_for_status()
        yield seeing
        http.post("/api/v1/models/default-preset", json={**default, "preset": None}).raise_for_status()


@pytest.mark.parametrize("name", PUZZLES)
def test_a_stream_and_a_whole_answer_have_the_same_reasoning(thinking: Server, name: str) -> None:
    dialect = replace(DIALECTS[name], body={**DIALECTS[name].body, **PUZZLES[name]})
    whole = asked(thinking, dialect)
    assert (whole.reasoning, whole.text) == (THOUGHT.format("France"), "Paris")
    assert streamed_answer(thinking, dialect) == whole


def png(red: int) -> str:
    """An image in base64, of one colour except for a corner."""
    image = Image.new("RGB", (32, 24), (red, 80, 160))
    image.putpixel((0, 0), (0, 0, 0))
    return base64.b64encode(encoded(image)).decode()


def by_openai(server: Server, image: str) -> str:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    content: Any = [{"type": "text", "text": "What is it?"}, part]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": content}], max_tokens=TOKENS, temperature=0
        )
    return reply.choices[0].message.content or ""


def by_responses(server: Server, image: str) -> str:
    part = {"type": "input_image", "image_url": f"data:image/png;base64,{image}"}
    content = [{"type": "input_text", "text": "What is it?"}, part]
    given: Any = [{"role": "user", "content": content}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        return client.responses.create(model=MODEL, input=given, max_output_tokens=TOKENS, temperature=0).output_text


def by_anthropic(server: Server, image: str) -> str:
    source = {"type": "base64", "media_type": "image/png", "data": image}
    content: Any = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        reply = client.messages.create(
            model=MODEL,
            messages=[{"role": "user", "content": content}],
            max_tokens=TOKENS,
            extra_body={"temperature": 0},
        )
    return "".join(block.text for block in reply.content if block.type == "text")


def by_ollama(server: Server, image: str) -> str:
    message = {"role": "user", "content": "What is it?", "images": [image]}
    options = {"temperature": 0, "num_predict": TOKENS}
    with ollama.Client(host=server.url, timeout=60) as client:
        return client.chat(MODEL, messages=[message], options=options).message.content or ""


def by_lmstudio(server: Server, image: str) -> str:
    given = [
        {"type": "text", "content": "What is it?"},
        {"type": "image", "data_url": f"data:image/png;base64,{image}"},
    ]
    body = {"model": MODEL, "input": given, "max_output_tokens": TOKENS, "temperature": 0, "store": False}
    reply = httpx.post(f"{server.url}/api/v1/chat", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["output"][0]["content"])


def by_sdk(server: Server, image: str) -> str:
    with lmstudio.Client(server.url.removeprefix("http://")) as client:
        chat = lmstudio.Chat()
        chat.add_user_message("What is it?", images=[client.prepare_image(base64.b64decode(image))])
        return client.llm.model(MODEL).respond(chat, config={"maxTokens": TOKENS, "temperature": 0}).content


@pytest.mark.parametrize("ask", [by_openai, by_responses, by_anthropic, by_ollama, by_lmstudio, by_sdk])
def test_a_model_sees_an_image(seeing: Server, ask: Callable[[Server, str], str]) -> None:
    first = ask(seeing, png(10))
    assert first
    assert ask(seeing, png(10)) == first
    assert ask(seeing, png(240)) != first


def test_models_with_vision_are_listed_as_such(seeing: Server) -> None:
    models = httpx.get(f"{seeing.url}/api/v1/models").json()["models"]
    assert [model["capabilities"]["vision"] for model in models] == [True]
    assert httpx.get(f"{seeing.url}/api/v0/models").json()["data"][0]["type"] == "vlm"
