"""The whole server with the real model, driven by the clients that people use."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import psutil
import pytest

from tests.support.command.cli_facts import STATISTICS
from tests.support.command.server_process import KEY, MODEL, Server
from tests.support.waiting import reaches

pytestmark = pytest.mark.system

HELLO: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)


def test_a_streamed_answer_arrives_in_pieces(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")


def test_an_answer_has_its_text_and_usage(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=KEY, messages=HELLO, temperature=0, max_tokens=24)
    assert reply.choices[0].message.content
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    def draw(seed: int) -> str | None:
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Tell me a story."}], seed=seed, max_tokens=32
        )
        return reply.choices[0].message.content

    assert draw(1) == draw(1) != draw(2)


def test_a_stored_response_is_continued(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Name a colour.", temperature=0, max_output_tokens=16)
    with client.responses.stream(
        model=MODEL, input="Another.", previous_response_id=first.id, temperature=0, max_output_tokens=16
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    again = client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": "Name a colour."}, *first.output, {"role": "user", "content": "Another."}],  # type: ignore[list-item]
        temperature=0,
        max_output_tokens=16,
    )
    continued = client.responses.create(
        model=MODEL, input="Another.", previous_response_id=first.id, temperature=0, max_output_tokens=16
    )
    assert first.usage is not None
    assert continued.usage is not None
    assert again.usage is not None
    assert continued.output_text == again.output_text
    assert continued.usage.input_tokens == again.usage.input_tokens > first.usage.input_tokens


def test_a_background_response_is_available_later(client: openai.OpenAI) -> None:
    begun = client.responses.create(model=MODEL, input="hi", background=True, max_output_tokens=16)
    assert begun.status == "queued"
    assert reaches(lambda: client.responses.retrieve(begun.id).status in ("completed", "incomplete"))
    assert client.responses.retrieve(begun.id).output_text


def test_structured_output_parses_and_validates(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 130}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a person."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
        max_tokens=100,
    )
    jsonschema.validate(json.loads(reply.choices[0].message.content or ""), schema)


def test_a_tool_that_must_be_called_is_called_whole_and_streamed_alike(client: openai.OpenAI) -> None:
    place = {"type": "string", "enum": ["Oslo", "Bergen"]}
    parameters = {
        "type": "object",
        "properties": {"place": place},
        "required": ["place"],
        "additionalProperties": False,
    }
    function = {"name": "weather", "description": "Of now.", "parameters": parameters, "strict": True}
    messages: Any = [{"role": "user", "content": "How is the weather in Bergen?"}]
    fields: Any = {
        "model": MODEL,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "seed": 1,
        "max_tokens": 200,
    }
    choice = client.chat.completions.create(messages=messages, **fields).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), parameters)
    with client.chat.completions.stream(messages=messages, **fields) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert [each.function.arguments for each in streamed.message.tool_calls or []] == [call.function.arguments]

    messages += [choice.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "Rain, 8 degrees."}]
    reply = client.chat.completions.create(**{**fields, "messages": messages, "tool_choice": "none", "max_tokens": 24})
    assert reply.choices[0].message.content
    assert reply.choices[0].message.tool_calls is None


def test_the_requested_number_of_choices_is_returned(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=HELLO, n=3, max_tokens=8, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]


def test_a_model_loaded_with_a_draft_model_reports_its_draft_tokens(server: Server) -> None:
    loaded = server.atelier("load", MODEL, "--draft-model", MODEL, "--identifier", "guessing", "-c", "512")
    assert loaded.returncode == 0, loaded.stderr
    statistics = server.atelier("chat", "guessing", "-p", "Count from one to ten.", "--temperature", "0", "--stats")
    assert f"usedDraftModelKey: {KEY}" in statistics.stdout
    assert "acceptedDraftTokensCount:" in statistics.stdout
    body = {"model": "guessing", "messages": HELLO, "max_tokens": 2}
    named = [
        httpx.post(f"{server.url}/v1/chat/completions", json={**body, "draft_model": name}, timeout=60)
        for name in (MODEL, "another")
    ]
    assert [reply.status_code for reply in named] == [200, 400]
    assert server.atelier("unload", "guessing").returncode == 0


def test_a_plain_completion_continues_the_prompt(client: openai.OpenAI) -> None:
    reply = client.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8)
    assert "Paris" in reply.choices[0].text


def test_prompts_and_tokens_are_the_models_own(server: Server, client: openai.OpenAI) -> None:
    def post(path: str, **body: Any) -> Any:
        return httpx.post(f"{server.url}/{path}", json={"model": MODEL, **body}, timeout=120).raise_for_status().json()

    prompt = post("apply-template", messages=HELLO)["prompt"]
    assert "<|im_start|>user\nhi<|im_end|>" in prompt
    tokens = post("tokenize", content=prompt, with_pieces=True)["tokens"]
    assert "".join(token["piece"] for token in tokens) == prompt
    assert post("detokenize", tokens=[token["id"] for token in tokens])["content"] == prompt
    assert len(post("tokenize", content=prompt, parse_special=False)["tokens"]) > len(tokens)
    assert post("tokenize", content="")["tokens"] == []
    reply = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(tokens)
    (part, *_) = [token["piece"] for token in post("tokenize", content="\U0001f9ff", with_pieces=True)["tokens"]]
    assert bytes(part).startswith(b"\xf0")
    strange = httpx.post(f"{server.url}/detokenize", json={"model": MODEL, "tokens": [2**31 - 1]}, timeout=120)
    assert (strange.status_code, strange.json()["error"]["param"]) == (400, "tokens")


def test_models_are_listed_and_found_by_id(client: openai.OpenAI) -> None:
    assert KEY in [model.id for model in client.models.list()]
    assert client.models.retrieve(KEY).id == KEY


async def test_eight_streams_run_concurrently_and_none_starves(server: Server) -> None:
    async def stream(client: openai.AsyncOpenAI, number: int) -> tuple[int, float]:
        started, pieces = time.monotonic(), 0
        chunks = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Tell me story number {number}."}],
            max_tokens=32,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in chunks:
            pieces += bool(chunk.choices and chunk.choices[0].delta.content)
        return pieces, time.monotonic() - started

    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        results = await asyncio.gather(*(stream(client, number) for number in range(8)))
    assert all(pieces > 16 for pieces, _ in results)
    slowest, fastest = max(s for _, s in results), min(s for _, s in results)
    assert slowest < 3 * fastest


def test_a_disconnect_frees_the_sequence(server: Server, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, max_tokens=2000, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    assert reaches(lambda: all(instance["active"] == 0 for instance in server.instances()))


def test_a_second_instance_is_loaded_addressed_and_unloaded(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2)
    loaded = server.atelier("load", MODEL, "--context-length", "1024", "--cores", "0", "--json")
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout)["instance_id"] == f"{KEY}:2"
    reply = client.chat.completions.create(model=f"{MODEL}:2", messages=HELLO, max_tokens=8)
    assert reply.choices[0].message.content
    workers = {instance["id"]: instance for instance in json.loads(server.atelier("ps", "--json").stdout)["instances"]}
    assert set(workers) == {KEY, f"{KEY}:2"}
    assert psutil.Process(workers[f"{KEY}:2"]["pid"]).cpu_affinity() == [0]
    assert "cores 0" in workers[f"{KEY}:2"]["pin"]
    assert len({worker["pid"] for worker in workers.values()}) == 2
    assert server.atelier("unload", f"{KEY}:2").returncode == 0
    assert [instance["id"] for instance in server.instances()] == [KEY]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=f"{MODEL}:2", messages=HELLO, max_tokens=2)


def test_a_killed_worker_is_replaced_and_the_next_request_succeeds(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2)
    before = server.instances()[0]["pid"]
    psutil.Process(before).kill()
    for _ in range(3):
        reply = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4)
        assert reply.choices[0].message.content is not None
    assert server.instances()[0]["pid"] != before


def test_a_killed_worker_does_not_affect_the_streams_of_others(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2)
    assert server.atelier("load", MODEL, "--identifier", "other", "--context-length", "1024").returncode == 0
    stream = client.chat.completions.create(
        model="other", messages=HELLO, stream=True, max_tokens=60, extra_body={"ignore_eos": True}
    )
    chunks = iter(stream)
    next(chunks)
    victim = next(instance for instance in server.instances() if instance["id"] == KEY)
    psutil.Process(victim["pid"]).kill()
    reply = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4)
    assert reply.choices
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    assert server.atelier("unload", "other").returncode == 0


def test_a_worker_killed_in_mid_stream_is_an_error_and_not_a_normal_end(server: Server, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2)
    body = {"model": MODEL, "messages": HELLO, "stream": True, "max_tokens": 2000, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as response:
        lines = (line for line in response.iter_lines() if line)
        for _ in range(4):
            next(lines)
        psutil.Process(server.instances()[0]["pid"]).kill()
        rest = list(lines)
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "worker_lost"
    assert "data: [DONE]" not in rest
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2).choices


BAD_REQUESTS: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "smollm2-135m-instrukt"}, 404, "model"),
    ({"max_tokens": -1}, 400, "max_tokens"),
    ({"messages": [{"role": "user", "content": "word " * 6000}]}, 400, "messages"),
    ({"max_tokens": 100_000}, 400, "max_tokens"),
    ({"temperature": "hot"}, 400, "temperature"),
    ({"n": 9}, 400, "n"),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "string", "minLength": 5, "maxLength": 2}},
            }
        },
        400,
        "response_format",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("change", "status", "param"), BAD_REQUESTS, ids=lambda value: str(value)[:40])
def test_invalid_input_says_what_to_change_and_the_next_request_works(
    server: Server, client: openai.OpenAI, change: dict[str, Any], status: int, param: str, stream: bool
) -> None:
    body = {"model": MODEL, "messages": HELLO, "stream": stream, **change}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error["message"]
    assert error["param"] == param
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1).choices


def test_an_unknown_model_suggests_similar_names(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=KEY):
        client.chat.completions.create(model="smollm2-instruct", messages=HELLO)


def test_a_truncated_file_is_rejected_and_the_next_request_works(
    server: Server, client: openai.OpenAI, starter_model: Path, tmp_path: Path
) -> None:
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(starter_model.read_bytes()[:50_000_000])
    refused = server.atelier("import", str(truncated), "--key", "test/truncated")
    assert refused.returncode == 1
    assert "truncated" in refused.stderr
    reply = httpx.post(f"{server.url}/api/v1/models/import", json={"path": str(truncated)}, timeout=30)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_model_file"
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1).choices


def test_an_imported_model_answers(server: Server, client: openai.OpenAI, starter_model: Path) -> None:
    imported = server.atelier("import", str(starter_model), "--key", "test/another", "--link")
    assert imported.returncode == 0, imported.stderr
    reply = client.chat.completions.create(model="test/another", messages=HELLO, max_tokens=4)
    assert reply.choices[0].message.content is not None
    assert server.atelier("unload", "test/another").returncode == 0


def test_chat_prints_the_statistics_that_lm_studio_shows(server: Server) -> None:
    chat = server.atelier("chat", MODEL, "-p", "hi", "--stats")
    assert chat.returncode == 0, chat.stderr
    for name in STATISTICS:
        assert name in chat.stdout + chat.stderr


def test_lm_studios_chat_has_its_statistics(server: Server) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 8}
    reply = httpx.post(f"{server.url}/api/v0/chat/completions", json=body, timeout=60).json()
    assert reply["stats"]["tokens_per_second"] > 0
    assert reply["stats"]["stop_reason"] in ("eosFound", "maxPredictedTokensReached")
    assert reply["model_info"]["arch"] == "llama"
    assert reply["runtime"]["name"]


def test_lm_studios_chat_reports_the_load_and_can_be_continued(server: Server) -> None:
    unload_all(server)
    first = chat_events(server, input="My name is Ada.", context_length=1024)
    second = chat_events(server, input="Who am I?", previous_response_id=first[-1]["result"]["response_id"])
    event_types = list(dict.fromkeys(event["type"] for event in first))
    assert event_types == [
        *("chat.start", "model_load.start", "model_load.progress", "model_load.end"),
        *("prompt_processing.start", "prompt_processing.progress", "prompt_processing.end"),
        *("message.start", "message.delta", "message.end", "chat.end"),
    ]
    (instance,) = server.instances()
    assert instance["context_length"] == 1024
    assert "model_load.start" not in [event["type"] for event in second]
    counts = [events[-1]["result"]["stats"]["input_tokens"] for events in (first, second)]
    assert counts[1] > counts[0] + 8  # the prompt contains the first turn too
    unload_all(server)  # other tests need the usual context length


def unload_all(server: Server) -> None:
    for instance in server.instances():
        unload = {"instance_id": instance["id"]}
        httpx.post(f"{server.url}/api/v1/models/unload", json=unload, timeout=60).raise_for_status()


def chat_events(server: Server, **fields: Any) -> list[Any]:
    body = {"model": MODEL, "max_output_tokens": 16, "stream": True, **fields}
    text = httpx.post(f"{server.url}/api/v1/chat", json=body, timeout=120).raise_for_status().text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
